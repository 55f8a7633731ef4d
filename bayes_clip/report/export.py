"""Posteriors for ArviZ: the one module that knows it.

ArviZ 0.23 (Python 3.11) takes groups as keywords and gives an `InferenceData`; 1.x (from Python 3.12) takes
one nested mapping and gives an xarray `DataTree`. Both have the same groups, and `.to_netcdf(path)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

OBSERVED = "labels"  # the name of the observed variable in every group


def to_arviz(
    posterior_samples: Mapping[str, ArrayLike],
    log_likelihood: ArrayLike | None = None,
    posterior_predictive: ArrayLike | None = None,
    observed: ArrayLike | None = None,
    sample_stats: Mapping[str, ArrayLike] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Any:
    """Draws of a posterior as ArviZ's `InferenceData` (0.x) or `DataTree` (1.x), one chain.

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


def _build(groups: dict[str, dict[str, np.ndarray]], attrs: dict[str, Any]) -> Any:
    import arviz  # here, because it takes seconds to import and few need it

    if int(version("arviz").split(".")[0]) == 0:
        keywords: dict[str, Any] = {**groups, "posterior_attrs": attrs}
        return arviz.from_dict(**keywords)
    nested: Any = groups
    return arviz.from_dict(nested, attrs={"posterior": attrs})


def _one_chain(samples: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """(draws, ...) -> (1, draws, ...); tensors come as they are, on the CPU."""
    return {name: np.asarray(values)[np.newaxis] for name, values in samples.items()}


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
