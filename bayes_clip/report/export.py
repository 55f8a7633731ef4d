"""Posteriors for ArviZ: the one module that knows it.

ArviZ 0.23 (Python 3.11) takes groups as keywords and gives an `InferenceData`; 1.x (from Python 3.12) takes
one nested mapping and gives an xarray `DataTree`. Both have the same groups, and `.to_netcdf(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from xarray import DataArray

from bayes_clip.data.rows import Rows
from bayes_clip.inference.kalman import StepInfo
from bayes_clip.posterior import Posterior
from bayes_clip.report.draws import attributes, draw
from bayes_clip.storage.files import written_whole

OBSERVED = "labels"  # the name of the observed variable in every group of `from_draws`
DRAWS = 500


def to_arviz(
    posterior: Posterior,
    features: Tensor | Rows,
    labels: Tensor,
    draws: int = DRAWS,
    seed: int = 0,
    thin: int = 1,
    steps: Sequence[StepInfo] = (),
) -> Any:
    """Any posterior as ArviZ's `InferenceData` (0.x) or `DataTree` (1.x), all groups in one call.

    `features` (N, D), or `Rows` of a task, and `labels` (N,): what the data groups are about. Leave-one-out
    needs those that the posterior was fitted to (``task.support_rows``); others make the predictive checks
    out of sample, and `loo` meaningless. Draws are independent, except those of a chain (`nuts`), which are
    exported evenly spaced and never more than there are. `seed`: of the draws; the caller's random numbers
    stay as they were. `thin`: keep every `thin`-th feature of weights (C, D), whose coordinates say which.
    `steps`: the infos of a filter's batches, as in ``fit(...).steps``.

    Groups: `posterior` (the program's sites; classes by name), `posterior_predictive` (labels drawn),
    `log_likelihood`, `observed_data`, and `sample_stats`: `lp`, the log joint density of the draw and these
    labels under the program, nats; `lq`, its log density under the posterior (Gaussians only), so that
    leave-one-out for approximate posteriors works; and over the dimension `step` a filter's scores.
    The attributes say engine, covariance, rule, prior variance, backbone and versions.

    Raises:
        UserError: fewer than one draw, labels that do not fit the features, or features that do not fit the
            posterior.
    """
    drawn = draw(posterior, features, labels, draws, seed)
    site = drawn.observed
    classes, width = len(posterior.class_names), posterior.program.width
    dims = {name: _dims(name, values.shape[1:], classes, width) for name, values in drawn.weights.items()}
    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": _one_chain(
            {name: _thinned(values, dims[name], thin) for name, values in drawn.weights.items()}
        ),
        "posterior_predictive": _one_chain({site: drawn.predictive}),
        "log_likelihood": _one_chain({site: drawn.log_likelihood}),
        "sample_stats": _one_chain(drawn.densities),
        "observed_data": {site: drawn.values},
    }
    coords = {"class": np.asarray(posterior.class_names), "feature": np.arange(width)[::thin]}
    data = _build(groups, attributes(posterior, seed), dims | {site: ["row"]}, coords)
    for name, values in _step_scores(steps).items():
        data["sample_stats"][name] = DataArray(values, dims="step")
    return data


def save_arviz(data: Any, path: Path) -> None:
    """Write what `to_arviz` returned as netCDF, whole or not at all; ``arviz.from_netcdf`` reads it.

    Raises:
        UserError: the folder is missing or cannot be written to.
    """
    with written_whole(path) as temporary:
        data.to_netcdf(str(temporary))


def from_draws(
    posterior_samples: Mapping[str, ArrayLike],
    log_likelihood: ArrayLike | None = None,
    posterior_predictive: ArrayLike | None = None,
    observed: ArrayLike | None = None,
    sample_stats: Mapping[str, ArrayLike] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Draws from anywhere as ArviZ's `InferenceData` (0.x) or `DataTree` (1.x), one chain.

    `posterior_samples`: site name -> (draws, ...). `log_likelihood` and `posterior_predictive` (draws, N):
    of each of N labels; `observed` (N,): the labels. `sample_stats`: name -> (draws, ...). `attrs`: text
    and numbers about the fit, kept with the posterior. Groups whose argument is None are left out.

    Raises:
        ValueError: the numbers of draws, or of labels, differ.
    """
    groups: dict[str, dict[str, np.ndarray]] = {"posterior": _one_chain(posterior_samples)}
    if log_likelihood is not None:
        groups["log_likelihood"] = _one_chain({OBSERVED: log_likelihood})
    if posterior_predictive is not None:
        groups["posterior_predictive"] = _one_chain({OBSERVED: posterior_predictive})
    if sample_stats is not None:
        groups["sample_stats"] = _one_chain(sample_stats)
    if observed is not None:
        groups["observed_data"] = {OBSERVED: np.asarray(observed)}
    _check(groups)
    return _build(groups, {"inference_library": "bayes_clip", **(attrs or {})})


def _build(
    groups: dict[str, dict[str, np.ndarray]],
    attrs: dict[str, Any],
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
) -> Any:
    import arviz  # here, because it takes seconds to import and few need it

    if int(version("arviz").split(".")[0]) == 0:
        keywords: dict[str, Any] = {**groups, "posterior_attrs": attrs, "dims": dims, "coords": coords}
        return arviz.from_dict(**keywords)
    nested: Any = groups
    return arviz.from_dict(nested, attrs={"posterior": attrs}, dims=dims, coords=coords)


def _one_chain(samples: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """(draws, ...) -> (1, draws, ...); tensors come as they are, on the CPU."""
    return {name: np.asarray(values)[np.newaxis] for name, values in samples.items()}


def _dims(site: str, shape: tuple[int, ...], classes: int, features: int) -> list[str]:
    """Names of a site's dimensions: `class` where there are C of them first, `feature` where D last."""
    names = [f"{site}_dim_{axis}" for axis in range(len(shape))]
    if shape and shape[0] == classes:
        names[0] = "class"
    if len(shape) > 1 and shape[-1] == features:
        names[-1] = "feature"
    return names


def _thinned(values: np.ndarray, dims: Sequence[str], thin: int) -> np.ndarray:
    """Every `thin`-th feature of a site's draws, if it has features."""
    return values[..., ::thin] if dims and dims[-1] == "feature" else values


def _step_scores(steps: Sequence[StepInfo]) -> dict[str, np.ndarray]:
    """Rows, prequential score and log evidence (nats) of each of a filter's batches, (steps,)."""
    if not steps:
        return {}
    return {
        "rows": np.array([step.rows for step in steps]),
        "prequential_score": np.array([float(step.prequential_score) for step in steps]),
        "log_evidence": np.array([float(step.change.log_evidence) for step in steps]),
    }


def _check(groups: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """ArviZ accepts groups of different length and fails much later, or not at all."""
    of_chain = {
        f"{group}/{name}": values.shape
        for group, variables in groups.items()
        for name, values in variables.items()
        if group != "observed_data"
    }
    if (
        any(len(shape) < 2 for shape in of_chain.values())
        or len({shape[1] for shape in of_chain.values()}) > 1
    ):
        raise ValueError(
            f"every variable needs the same number of draws first; got (1, draws, ...): {of_chain}"
        )
    of_labels = {
        values.shape[-1]
        for group in ("log_likelihood", "posterior_predictive", "observed_data")
        for values in groups.get(group, {}).values()
    }
    if len(of_labels) > 1:
        raise ValueError(f"log_likelihood, posterior_predictive and observed differ in labels: {of_labels}")
