"""The ArviZ shim: groups, shapes, attributes, leave-one-out, and the way through a netCDF file."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz
import matplotlib
import numpy as np
import pytest
import torch
from importance import Weighted, weighted_draws
from naive_twins import diagonal_blocks, mode_and_covariance
from numpy.testing import assert_allclose, assert_array_equal
from small_problems import problem_of, tiny_task

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.gaussian import ClassBlock, Diagonal, Full
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference import kalman
from bayes_clip.inference.engines import Weights
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.model import Context, find_model
from bayes_clip.posterior import Posterior, Source
from bayes_clip.report.export import from_draws, to_arviz
from bayes_clip.settings import FitSettings

matplotlib.use("Agg")
OLD = version("arviz").startswith("0.")
needs_1 = pytest.mark.skipif(
    OLD, reason=f"arviz {version('arviz')}: this needs 1.x, which needs Python 3.12 or later"
)
DRAWS, ROWS = 50, 7
VARIANCE = 0.05
TASK = tiny_task(classes=3, features=2, shots=3, logit_scale=4.0)
SUPPORT = TASK.support_features, TASK.support_labels
STRUCTURED = ("kronecker", "low_rank", "diagonal_variational")  # beliefs kept as precisions: filtered
GAUSSIAN = ("full", "class_block", "diagonal", "vi_low_rank", *STRUCTURED)
KINDS = (*GAUSSIAN, "point", "draws")


def laplace_of(kind: str, exact: Weighted) -> Weights:
    """What is known of the weights, made by hand around the mode; `draws` are exact ones."""
    mode, covariance = mode_and_covariance(problem_of(TASK, VARIANCE))
    if kind == "point":
        return Point(mode)
    if kind == "draws":
        return Draws(exact.resampled(400))
    if kind in STRUCTURED:
        problem = problem_of(TASK, VARIANCE)
        start = kalman.init(problem.mean, problem.variance, kind)
        return kalman.update(start, Batch(problem.design, problem.labels), RULES["iterated"])[0].belief
    if kind == "full":
        return Full(mode, covariance)
    if kind == "class_block":
        return ClassBlock(mode, diagonal_blocks(covariance, 3))
    if kind == "diagonal":
        return Diagonal(mode, covariance.diagonal().reshape(mode.shape))
    values, vectors = torch.linalg.eigh(covariance)
    factor = vectors[:, -2:] * values[-2:].sqrt()
    rest = covariance.diagonal() - factor.square().sum(-1)
    return LowRank(mode, rest.reshape(mode.shape), factor.reshape(*mode.shape, 2))


@pytest.fixture(scope="module")
def exact() -> Weighted:
    return weighted_draws(problem_of(TASK, VARIANCE), 30_000)


@pytest.fixture(scope="module")
def known(exact: Weighted) -> dict[str, Posterior]:
    context = Context(TASK.text_features.double(), TASK.class_names, TASK.logit_scale)
    program = find_model("linear_probe")(context, VARIANCE)
    settings = FitSettings(engine="laplace", covariance="full", prior_variance=VARIANCE, dtype="float64")
    source = Source(settings, "tiny", None, 3, 0, 9, VARIANCE, 1.0)
    return {kind: Posterior(program, laplace_of(kind, exact), source) for kind in KINDS}


@pytest.fixture(scope="module")
def exported(known: dict[str, Posterior]) -> dict[str, Any]:
    return {kind: to_arviz(posterior, *SUPPORT, draws=400) for kind, posterior in known.items()}


@pytest.fixture
def parts() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "posterior_samples": {
            "class_weights": torch.randn(DRAWS, 3, 4),
            "scale": generator.normal(size=DRAWS),
        },
        "log_likelihood": -generator.gamma(1.0, 1.0, (DRAWS, ROWS)),
        "posterior_predictive": generator.integers(0, 3, (DRAWS, ROWS)),
        "observed": generator.integers(0, 3, ROWS),
        "sample_stats": {"log_q": generator.normal(size=DRAWS)},
        "attrs": {"engine": "ekf", "prior_variance": 0.01},
    }


def elpd(found: Any) -> float:
    return float(found.elpd_loo if OLD else found.elpd)


def log_joint(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood (S, N) of the support labels and log prior (S,) of weights (S, C, D), written out."""
    logits = TASK.logit_scale * np.einsum("nd,scd->snc", TASK.support_features.double().numpy(), weights)
    largest = logits.max(-1, keepdims=True)
    normaliser = np.log(np.exp(logits - largest).sum(-1)) + largest[..., 0]
    rows = np.arange(len(TASK.support_labels))
    excess = weights - TASK.text_features.double().numpy()
    prior = -(excess**2) / VARIANCE / 2 - np.log(2 * np.pi * VARIANCE) / 2
    return logits[:, rows, TASK.support_labels.numpy()] - normaliser, prior.sum((1, 2))


@pytest.mark.parametrize("name", KINDS)
def test_one_call_exports_every_group(name: str, exported: dict[str, Any]) -> None:
    data, rows = exported[name], len(TASK.support_labels)
    weights = data["posterior"]["class_weights"]
    assert weights.dims == ("chain", "draw", "class", "feature") and weights.shape == (1, 400, 3, 2)
    assert tuple(weights.coords["class"].values) == TASK.class_names
    for group in ("posterior_predictive", "log_likelihood"):
        assert data[group]["labels"].dims == ("chain", "draw", "row")
        assert data[group]["labels"].shape == (1, 400, rows)
    assert_array_equal(data["observed_data"]["labels"].values, TASK.support_labels.numpy())
    fit_of, prior = log_joint(weights.values[0].astype(float))
    assert_allclose(data["log_likelihood"]["labels"].values[0], fit_of, rtol=1e-6, atol=1e-6)
    assert_allclose(data["sample_stats"]["lp"].values[0], fit_of.sum(1) + prior, rtol=1e-6)
    assert ("lq" in data["sample_stats"]) is (name in GAUSSIAN)


@pytest.mark.parametrize("name", GAUSSIAN)
def test_draws_and_their_log_density_are_those_of_the_posterior(
    name: str, known: dict[str, Posterior], exported: dict[str, Any]
) -> None:
    guide = known[name].get_posterior()
    flat = torch.from_numpy(exported[name]["posterior"]["class_weights"].values[0]).flatten(1)
    assert_allclose(exported[name]["sample_stats"]["lq"].values[0], guide.log_prob(flat).numpy(), rtol=1e-9)
    deviation = (flat.mean(0) - guide.mean) / guide.variance.sqrt()
    assert float(deviation.abs().max()) < 4 / 400**0.5
    assert_allclose(flat.var(0).numpy(), guide.variance.numpy(), rtol=0.5)


def test_predicted_labels_come_as_often_as_the_program_says(exported: dict[str, Any]) -> None:
    """Each row's frequencies against the average softmax of the same draws, to four standard errors."""
    data = exported["full"]
    weights = data["posterior"]["class_weights"].values[0]
    logits = TASK.logit_scale * np.einsum("nd,scd->snc", TASK.support_features.double().numpy(), weights)
    wanted = torch.from_numpy(logits).softmax(-1).mean(0).numpy()
    labels = data["posterior_predictive"]["labels"].values[0]
    seen = np.stack([(labels == index).mean(0) for index in range(3)], -1)
    assert (np.abs(seen - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 400) + 1e-9).all()


def test_a_chain_is_exported_in_order_and_a_point_without_spread(
    known: dict[str, Posterior], exported: dict[str, Any]
) -> None:
    chain = known["draws"].weights.samples
    assert_array_equal(exported["draws"]["posterior"]["class_weights"].values[0], chain.numpy())
    few, more = (to_arviz(known["draws"], *SUPPORT, draws=draws) for draws in (20, 10_000))
    assert more["posterior"]["class_weights"].shape[1] == 400
    some = few["posterior"]["class_weights"].values[0]
    assert_array_equal(some[[0, -1]], chain[[0, -1]].numpy())
    assert np.ptp(exported["point"]["posterior"]["class_weights"].values, axis=1).max() == 0


def test_attributes_say_where_it_comes_from(exported: dict[str, Any]) -> None:
    attributes = exported["full"]["posterior"].attrs
    wanted = {"engine": "laplace", "covariance": "full", "task": "tiny", "prior_variance": VARIANCE}
    assert wanted.items() <= attributes.items()
    assert attributes["version_torch"] == version("torch")
    assert "rule" not in attributes and "backbone" not in attributes


def test_the_same_seed_draws_the_same_and_leaves_the_callers_numbers_alone(
    known: dict[str, Posterior],
) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (to_arviz(known["full"], *SUPPORT, draws=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), wanted)
    for group, variable in (("posterior", "class_weights"), ("posterior_predictive", "labels")):
        assert_array_equal(first[group][variable].values, again[group][variable].values)
    assert not np.array_equal(
        first["posterior"]["class_weights"].values, other["posterior"]["class_weights"].values
    )


def test_thinned_weights_say_which_they_are(known: dict[str, Posterior]) -> None:
    whole, thinned = (to_arviz(known["full"], *SUPPORT, draws=5, thin=thin) for thin in (1, 2))
    kept = thinned["posterior"]["class_weights"]
    assert kept.coords["feature"].values.tolist() == [0]
    assert_array_equal(kept.values, whole["posterior"]["class_weights"].sel(feature=[0]).values)
    assert_array_equal(thinned["sample_stats"]["lp"].values, whole["sample_stats"]["lp"].values)


def test_scores_of_a_filters_steps_come_along(tmp_path: Path) -> None:
    found = fit(TASK, FitSettings(prior_variance=VARIANCE, batch_size=3, dtype="float64"))
    path = tmp_path / "steps.nc"
    to_arviz(found.posterior, *SUPPORT, draws=4, steps=found.steps).to_netcdf(str(path))
    back = arviz.from_netcdf(str(path))
    assert back["posterior"].attrs["rule"] == "expected" and back["posterior"].attrs["engine"] == "ekf"
    stats = back["sample_stats"]
    assert len(found.steps) == 3 and stats["prequential_score"].dims == ("step",)
    assert_array_equal(stats["rows"].values, [3, 3, 3])
    assert_allclose(stats["prequential_score"].values.sum(), found.info["prequential_score"])
    assert_allclose(stats["log_evidence"].values.sum(), found.info["log_evidence"])


@pytest.mark.parametrize("name", KINDS)
def test_netcdf_gives_back_an_exported_posterior(name: str, exported: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    exported[name].to_netcdf(str(path))
    back = arviz.from_netcdf(str(path))
    for group in ("posterior", "posterior_predictive", "log_likelihood", "sample_stats", "observed_data"):
        for variable, values in exported[name][group].data_vars.items():
            assert_array_equal(back[group][variable].values, values.values)
    assert tuple(back["posterior"].coords["class"].values) == TASK.class_names
    assert back["posterior"].attrs == exported[name]["posterior"].attrs


@pytest.mark.parametrize("name", GAUSSIAN)
def test_leave_one_out_of_an_approximate_posterior_is_the_exact_one(
    name: str, known: dict[str, Posterior], exact: Weighted
) -> None:
    """PSIS with the weights corrected by lp − lq (Magnusson et al. 2019), within 0.15 nats of 9 rows' sum.

    Ordinary `loo` takes the draws for exact ones. 1.x has `loo_approximate_posterior`; 0.23 its `psislw`.
    """
    data = to_arviz(known[name], *SUPPORT, draws=4_000)
    stats = data["sample_stats"]
    if OLD:
        fit_of = data["log_likelihood"]["labels"].stack(__sample__=("chain", "draw"))
        correction = (stats["lp"] - stats["lq"]).stack(__sample__=("chain", "draw"))
        weights, _ = arviz.psislw(-fit_of + correction)
        found = float(np.logaddexp.reduce((weights + fit_of).values, axis=-1).sum())
    else:
        found = float(arviz.loo_approximate_posterior(data, stats["lp"], stats["lq"]).elpd)
    assert abs(found - float(exact.leave_one_out.sum())) < 0.15


def test_leave_one_out_of_exact_draws_is_the_exact_one(exported: dict[str, Any], exact: Weighted) -> None:
    found = arviz.loo(exported["draws"], pointwise=True)
    assert abs(elpd(found) - float(exact.leave_one_out.sum())) < 0.5
    assert np.isfinite(np.asarray(found.pareto_k)).all()


@pytest.mark.parametrize("name", ["full", "draws"])
def test_arviz_draws_its_checks(name: str, exported: dict[str, Any]) -> None:
    data = exported[name]
    found = arviz.loo(data, pointwise=True)
    if OLD:
        assert arviz.plot_khat(found).get_figure() is not None
        assert arviz.plot_loo_pit(data, y="labels").get_figure() is not None
    else:
        for plot in (arviz.plot_khat(found), arviz.plot_loo_pit(data)):
            assert plot.viz["figure"].item() is not None
    matplotlib.pyplot.close("all")


@needs_1
def test_arviz_draws_reliability_of_every_class(exported: dict[str, Any]) -> None:
    drawn = arviz.plot_ppc_pava(exported["full"], data_type="categorical")
    titles = {axes.get_title() for axes in drawn.viz["figure"].item().axes}
    assert {f"labels {index} vs others" for index in range(3)} <= titles
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"draws": 0}, "draws=0"),
        ({"labels": TASK.support_labels[:-1]}, "for 9 rows of features"),
        ({"features": TASK.support_features[:, :1]}, "this posterior takes"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], message: str, known: dict[str, Posterior]
) -> None:
    given = {"features": SUPPORT[0], "labels": SUPPORT[1], **change}
    with pytest.raises(UserError, match=message):
        to_arviz(known["point"], **given)


def test_every_group_holds_what_was_given(parts: dict[str, Any]) -> None:
    data = from_draws(**parts)
    assert data["posterior"]["class_weights"].shape == (1, DRAWS, 3, 4)
    assert_array_equal(
        data["posterior"]["class_weights"].values[0], parts["posterior_samples"]["class_weights"].numpy()
    )
    assert_array_equal(data["log_likelihood"]["labels"].values[0], parts["log_likelihood"])
    assert_array_equal(data["posterior_predictive"]["labels"].values[0], parts["posterior_predictive"])
    assert_array_equal(data["observed_data"]["labels"].values, parts["observed"])
    assert_array_equal(data["sample_stats"]["log_q"].values[0], parts["sample_stats"]["log_q"])
    assert data["posterior"].attrs["engine"] == "ekf"


def test_netcdf_gives_back_the_same(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    from_draws(**parts).to_netcdf(str(path))
    back = arviz.from_netcdf(str(path))
    assert_array_equal(
        back["posterior"]["class_weights"].values[0], parts["posterior_samples"]["class_weights"].numpy()
    )
    assert_array_equal(back["observed_data"]["labels"].values, parts["observed"])
    assert back["posterior"].attrs["prior_variance"] == 0.01


def test_leave_one_out_runs_on_draws_from_anywhere(parts: dict[str, Any]) -> None:
    with np.errstate(all="ignore"):
        assert np.isfinite(elpd(arviz.loo(from_draws(**parts), pointwise=True)))


def test_groups_that_were_not_given_are_absent(parts: dict[str, Any]) -> None:
    data = from_draws(parts["posterior_samples"])
    groups = {str(group).strip("/") for group in (data.groups() if callable(data.groups) else data.groups)}
    assert groups - {""} == {"posterior"}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("log_likelihood", np.zeros((DRAWS - 1, ROWS)), "draws"),
        ("sample_stats", {"log_q": 0.5}, "draws"),
        ("observed", np.zeros(ROWS + 1, dtype=int), "labels"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict, name: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        from_draws(**{**parts, name: value})
