from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from naive_twins import mode_and_covariance
from small_problems import assert_near, problem_of, tiny_task
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.gaussian import (
    ClassBlock,
    Diagonal,
    Full,
    Kronecker,
    LowRankPrecision,
    VariationalDiagonal,
    cost,
)
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference import ENGINE_COVARIANCES, ENGINES, mcmc
from bayes_clip.inference import laplace as laplace_module
from bayes_clip.settings import FitSettings

TASK = tiny_task(ood=True)
ARMS = [
    (engine, covariance) for engine, names in ENGINE_COVARIANCES.items() for covariance in names or [None]
]
KINDS = {
    ("ekf", "class_block"): ClassBlock,
    ("ekf", "diagonal"): Diagonal,
    ("ekf", "diagonal_variational"): VariationalDiagonal,
    ("ekf", "full"): Full,
    ("ekf", "kronecker"): Kronecker,
    ("ekf", "low_rank"): LowRankPrecision,
    ("laplace", "class_block"): ClassBlock,
    ("laplace", "diagonal"): Diagonal,
    ("laplace", "full"): Full,
    ("laplace", "kronecker"): Kronecker,
    ("vi", "diagonal"): Diagonal,
    ("vi", "low_rank"): LowRank,
    ("sgd", None): Point,
    ("map", None): Point,
    ("zero_shot", None): Point,
    ("nuts", None): Draws,
}


def settings_of(engine: str, covariance: str | None = None, **others: object) -> FitSettings:
    return FitSettings(engine=engine, covariance=covariance, **{"prior_variance": 0.01, **others})


def tensors(task: Task) -> dict[str, Tensor]:
    return {name: value for name, value in vars(task).items() if isinstance(value, Tensor)}


def accuracy(task: Task, probabilities: Tensor) -> float:
    return float((probabilities.argmax(-1) == task.query_labels).double().mean())


@pytest.fixture(scope="module")
def short_chains() -> Iterator[None]:
    """The chain's length is not what most of these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mcmc, "DRAWS", 30)
        patch.setattr(mcmc, "WARMUP", 20)
        yield


def settings_of_arm(arm: tuple[str, str | None]) -> FitSettings:
    predictive = "plug_in" if arm[0] in ("vi", "nuts") else "auto"  # no folds where they are refitted
    return settings_of(*arm, predictive=predictive)


@pytest.fixture(scope="module", params=ARMS, ids=lambda arm: "-".join(filter(None, arm)))
def fitted(request: pytest.FixtureRequest, short_chains: None) -> tuple:
    before = {name: value.clone() for name, value in tensors(TASK).items()}
    return request.param, before, fit(TASK, settings_of_arm(request.param))


def test_every_engine_beats_chance_with_the_weights_it_promises(fitted: tuple) -> None:
    arm, _, result = fitted
    prediction = result.posterior.predict(TASK.query_features)
    assert accuracy(TASK, prediction.probabilities) > 0.5
    assert_near(prediction.probabilities.sum(-1), torch.ones(len(TASK.query_labels)).double(), 1e-6)
    assert isinstance(result.posterior.weights, KINDS[arm])


def test_no_engine_touches_the_tensors_of_the_task(fitted: tuple) -> None:
    _, before, _ = fitted
    after = tensors(TASK)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_engine_repeats_itself_bit_for_bit(fitted: tuple) -> None:
    """And leaves the caller's random numbers where they were."""
    arm, _, result = fitted
    torch.manual_seed(123)
    np.random.seed(123)
    random.seed(123)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    again = fit(TASK, settings_of_arm(arm)).posterior
    for name, value in vars(result.posterior.weights).items():
        assert torch.equal(getattr(again.weights, name), value), name
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


@pytest.mark.parametrize("engine", ["vi", "nuts"])
@pytest.mark.usefixtures("short_chains")
def test_engines_that_draw_depend_on_the_seed(engine: str) -> None:
    fits = [fit(TASK, settings_of(engine, seed=seed, predictive="plug_in")) for seed in (0, 1)]
    assert not torch.equal(fits[0].posterior.weights.mean, fits[1].posterior.weights.mean)


def test_every_engine_is_covered() -> None:
    assert {engine for engine, _ in ARMS} == ENGINES.keys()
    assert KINDS.keys() == set(ARMS)


def test_iterated_ekf_at_one_shot_is_laplace() -> None:
    task = tiny_task(shots=1)
    for covariance in ("full", "class_block"):
        pair = [
            fit(task, settings_of(engine, covariance, rule="iterated", dtype="float64")).posterior.weights
            for engine in ("ekf", "laplace")
        ]
        assert_near(pair[0].mean, pair[1].mean)
        assert_near(pair[0].covariance, pair[1].covariance)


def test_map_is_the_mode() -> None:
    weights = fit(TASK, settings_of("map", dtype="float64")).posterior.weights
    assert_near(weights.mean, mode_and_covariance(problem_of(TASK, 0.01))[0], 1e-8)


def test_mean_field_variance_is_the_inverse_of_the_expected_curvature() -> None:
    """At the optimum of the ELBO each variance is 1 / (1/v + Σ x² E[p (1 − p)]); 500 noisy steps come within
    a fifth of it for the typical weight."""
    weights = fit(TASK, settings_of("vi", dtype="float64", predictive="plug_in")).posterior.weights
    problem = problem_of(TASK, 0.01)
    mean, variance = weights.logit_moments(problem.design)
    noise = torch.randn(4000, *mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = (mean + variance.sqrt() * noise).softmax(-1)
    curvature = (samples * (1 - samples)).mean(0)
    wanted = 1 / (100 + curvature.mT @ problem.design.square())
    assert float((weights.variance / wanted).log().abs().median()) < 0.2
    assert float((wanted / 0.01).min()) < 0.9, "the labels must narrow the weights in this test"


def test_a_full_covariance_too_large_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "free_memory", lambda device: 2**30)
    monkeypatch.setattr(Full, "from_prior", None)
    monkeypatch.setattr(laplace_module, "_full", None)
    large = tiny_task(classes=50, features=300, shots=1, queries=1)
    for engine, size in (("ekf", r"2\.5"), ("laplace", r"5\.0")):  # laplace inverts in float64
        message = rf"--covariance full needs about {size} GiB .* and 1\.0 GiB are free"
        with pytest.raises(UserError, match=message):
            fit(large, settings_of(engine, "full"))
