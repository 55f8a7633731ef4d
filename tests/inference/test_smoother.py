"""The smoother against the dense joint Gaussian of all steps, and what must hold whatever the stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joint_gaussian import JointGaussian, given_observations, joint_prior
from naive_twins import diagonal_blocks, jacobian
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import Belief, Full
from bayes_clip.inference import kalman, smoother, stream
from bayes_clip.inference.kalman import Batch, KalmanState
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.smoother import run_and_smooth, smooth
from bayes_clip.observation import Gaussian
from bayes_clip.state_space import Dynamics, StateSpace, as_dynamics

NOISE = 0.4
SPACES = [StateSpace(0.8), StateSpace(1.0, 0.2), StateSpace(0.7, 0.3), StateSpace(0.9, 0.0), StateSpace()]


def covariance_of(belief: Belief) -> Tensor:
    return belief.variance if hasattr(belief, "variance") else belief.covariance  # type: ignore[attr-defined]


def observed_values(problem: SmallProblem, seed: int = 5) -> Tensor:
    """Noisy logits (N, C)."""
    noise = torch.randn(problem.logits.shape, generator=torch.Generator().manual_seed(seed))
    return problem.logits + noise.to(problem.logits)


def filtered(
    problem: SmallProblem, values: Tensor, size: int, space: StateSpace | Dynamics, family: str
) -> list[KalmanState]:
    """The filter's states where each batch of `size` rows shows its logits with variance NOISE."""
    shown = Gaussian(torch.tensor(NOISE, dtype=torch.float64))
    state, states = kalman.init(problem.mean, problem.variance, family), []
    for design, seen in zip(problem.design.split(size), values.split(size), strict=True):
        state, _ = kalman.update(state, Batch(design, seen), RULES["plain"], space, shown)
        states.append(state)
    return states


def joint(problem: SmallProblem, values: Tensor, size: int, space: StateSpace | Dynamics) -> JointGaussian:
    """The posterior of all steps at once; weights flat, classes outermost."""
    mean, variance = problem.mean.reshape(-1), problem.variance.reshape(-1)
    dynamics = as_dynamics(space)
    decay = torch.as_tensor(dynamics.decay, dtype=torch.float64).expand_as(problem.mean).reshape(-1)
    noise = (dynamics.noise * problem.variance).reshape(-1)
    classes, features = problem.mean.shape
    rows = [jacobian(part, classes).reshape(-1, classes * features) for part in problem.design.split(size)]
    prior = joint_prior(mean, variance, decay, noise, len(rows))
    return given_observations(prior, rows, [part.reshape(-1) for part in values.split(size)], NOISE)


def flat_covariance(belief: Belief) -> Tensor:
    covariance = covariance_of(belief)
    if covariance.shape == belief.mean.shape:
        return torch.diag(covariance.reshape(-1))
    return covariance if covariance.ndim == 2 else torch.block_diag(*covariance)


@pytest.mark.parametrize("family", ["full", "class_block"])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_smoother_is_the_joint_gaussian_of_all_steps(family: str, space: StateSpace) -> None:
    """Gaussian observations of each class's logits do not couple the classes: both families are exact."""
    problem = small_problem(classes=3, features=4, rows=10)
    values = observed_values(problem)
    wanted = joint(problem, values, 2, space)
    found = smooth(filtered(problem, values, 2, space, family), space, lag_one=True)
    assert found.means.shape == (5, 3, 4)
    for index, belief in enumerate(found.beliefs):
        mean, covariance = wanted.step(index)
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(flat_covariance(belief), covariance)
    for index, neighbour in enumerate(found.lag_one):
        between = wanted.between(index + 1, index)
        assert_near(neighbour, between[None] if family == "full" else diagonal_blocks(between, 3))


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("family", ["diagonal", "diagonal_variational"])
def test_diagonal_smoothers_are_exact_where_every_weight_is_seen_alone(
    family: str, space: StateSpace
) -> None:
    problem = small_problem(classes=2, features=3, rows=6)
    problem = SmallProblem(torch.eye(3).double().repeat(2, 1), problem.labels, problem.mean, problem.variance)
    values = observed_values(problem)
    wanted = joint(problem, values, 1, space)
    found = smooth(filtered(problem, values, 1, space, family), space, lag_one=True)
    for index, belief in enumerate(found.beliefs):
        mean, covariance = wanted.step(index)
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(flat_covariance(belief), covariance)
    assert_near(found.lag_one[2].reshape(-1), wanted.between(3, 2).diagonal())


@pytest.mark.parametrize("family", ["full", "class_block"])
def test_decay_and_noise_of_each_weight(family: str) -> None:
    problem = small_problem(classes=2, features=3, rows=8)
    decay = torch.tensor([[1.0, 0.9, 0.5], [0.8, 1.0, 0.7]], dtype=torch.float64)
    noise = torch.tensor([[0.0, 0.1, 0.75], [0.3, 0.2, 0.0]], dtype=torch.float64)
    space = Dynamics(decay, noise)
    values = observed_values(problem)
    wanted = joint(problem, values, 2, space)
    found = smooth(filtered(problem, values, 2, space, family), space)
    for index, belief in enumerate(found.beliefs):
        mean, covariance = wanted.step(index)
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(flat_covariance(belief), covariance)


@pytest.mark.parametrize("family", ["full", "class_block", "diagonal", "diagonal_variational"])
@pytest.mark.parametrize("rule", sorted(RULES))
def test_without_process_noise_every_step_is_the_last(family: str, rule: str) -> None:
    problem = small_problem(rows=12)
    state = kalman.init(problem.mean, problem.variance, family)
    data = [Batch(problem.design[rows], problem.labels[rows]) for rows in torch.arange(12).split(3)]
    last, infos = stream.run(state, data, RULES[rule])
    found, same = run_and_smooth(state, data, RULES[rule])
    assert len(found.beliefs) == len(same) == len(infos) == 4
    for belief in found.beliefs:
        assert torch.equal(belief.mean, last.belief.mean)
        assert torch.equal(covariance_of(belief), covariance_of(last.belief))
    assert "4 steps" in repr(found)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    decay=st.floats(0.3, 1.0),
    noise=st.floats(1e-4, 2.0),
    family=st.sampled_from(["full", "class_block", "diagonal", "diagonal_variational"]),
)
def test_later_batches_only_sharpen_a_belief(seed: int, decay: float, noise: float, family: str) -> None:
    """Softmax labels: the last step is the filter's; elsewhere P − Pˢ and Pˢ are positive semidefinite."""
    problem = small_problem(rows=9, seed=seed)
    space = StateSpace(decay, noise)
    state, states = kalman.init(problem.mean, problem.variance, family), []
    for rows in torch.arange(9).split(3):
        batch = Batch(problem.design[rows], problem.labels[rows])
        state, _ = kalman.update(state, batch, RULES["iterated"], space)
        states.append(state)
    found = smooth(states, space)
    assert torch.equal(found.beliefs[-1].mean, state.belief.mean)
    for belief, before in zip(found.beliefs, states, strict=True):
        covariance, wider = flat_covariance(belief), flat_covariance(before.belief)
        assert float(torch.linalg.eigvalsh(covariance).min()) > 0
        assert float(torch.linalg.eigvalsh(wider - covariance).min()) > -1e-9


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.permutations(range(3)))
def test_the_names_of_the_classes_do_not_matter(seed: int, order: list[int]) -> None:
    problem, space = small_problem(rows=9, seed=seed), StateSpace(0.9)
    new_label = torch.argsort(torch.tensor(order))
    renamed = SmallProblem(
        problem.design, new_label[problem.labels], problem.mean[order], problem.variance[order]
    )
    means = []
    for one in (problem, renamed):
        data = [Batch(one.design[rows], one.labels[rows]) for rows in torch.arange(9).split(3)]
        state = kalman.init(one.mean, one.variance, "class_block")
        means.append(run_and_smooth(state, data, RULES["iterated"], space)[0].means)
    assert_near(means[1], means[0][:, order], 1e-8)


def test_float32_beliefs_are_smoothed_in_float64() -> None:
    problem = small_problem(classes=4, features=8, rows=60)
    space = StateSpace(1.0, 1e-4)
    values = observed_values(problem)
    exact = smooth(filtered(problem, values, 2, space, "class_block"), space)
    single = SmallProblem(
        problem.design.float(), problem.labels, problem.mean.float(), problem.variance.float()
    )
    found = smooth(filtered(single, values, 2, space, "class_block"), space)
    assert found.means.dtype == torch.float32
    assert_near(found.means.double(), exact.means, 1e-4)


def test_what_cannot_be_smoothed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, space = small_problem(rows=12), StateSpace(0.9)
    state = kalman.init(problem.mean, problem.variance, "full")
    data = [Batch(problem.design[rows], problem.labels[rows]) for rows in torch.arange(12).split(1)]
    with pytest.raises(UserError, match="nothing to smooth"):
        smooth([], space)
    other = KalmanState(object(), problem.mean, problem.variance)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="none for object; use --covariance full"):
        smooth([other], space)
    monkeypatch.setattr(smoother, "free_memory", lambda device: 40_000)
    with pytest.raises(UserError, match="smoothing 12 steps keeps 24 beliefs"):
        run_and_smooth(state, data, RULES["plain"], space)
    monkeypatch.setattr(smoother, "free_memory", lambda device: 100_000)
    run_and_smooth(state, data, RULES["plain"], space)


def test_a_covariance_that_is_none_is_refused() -> None:
    problem, space = small_problem(rows=4), StateSpace(1.0, 1e-3)
    state = kalman.init(problem.mean, problem.variance, "full")
    broken = replace(state, belief=Full(problem.mean, -covariance_of(state.belief)))
    with pytest.raises(UserError, match="not positive definite; filter with --dtype float64"):
        smooth([broken, state], space)
