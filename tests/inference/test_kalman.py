from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from naive_twins import diagonal_blocks, jacobian, mode_and_covariance
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import Belief, ClassBlock, Diagonal, Full
from bayes_clip.inference import kalman, stream
from bayes_clip.inference.kalman import Batch, KalmanState
from bayes_clip.inference.laplace import laplace
from bayes_clip.inference.rules import RULES
from bayes_clip.observation import Gaussian
from bayes_clip.state_space import StateSpace

PASSABLE = ("class_block", "full")


def covariance_of(belief: Belief) -> Tensor:
    return belief.variance if isinstance(belief, Diagonal) else belief.covariance


def start(problem: SmallProblem, family: str) -> KalmanState:
    return kalman.init(problem.mean, problem.variance, family)


def batches_of(problem: SmallProblem, size: int) -> list[Batch]:
    rows = torch.arange(len(problem.labels)).split(size)
    return [Batch(problem.design[part], problem.labels[part]) for part in rows]


def observing(design: Tensor, values: Tensor, size: int) -> list[Batch]:
    """Batches of real values (N, C), for Gaussian observations."""
    parts = zip(design.split(size), values.split(size), strict=True)
    return [Batch(*part) for part in parts]


def gaussian(noise: float) -> Gaussian:
    return Gaussian(torch.tensor(noise, dtype=torch.float64))


@pytest.mark.parametrize("family", ["class_block", "diagonal", "full"])
def test_one_batch_iterated_is_the_mode_with_the_laplace_covariance(family: str) -> None:
    problem = small_problem(classes=4, rows=18)
    (batch,) = batches_of(problem, 18)
    state, info = kalman.update(start(problem, family), batch, RULES["iterated"])
    mode, covariance = mode_and_covariance(problem)
    assert_near(state.belief.mean, mode)
    assert_near(info.change.logits, problem.design @ mode.mT)
    if family == "diagonal":  # marginal variances, where Laplace's own `diagonal` inverts the precision's
        assert_near(state.belief.variance.reshape(-1), covariance.diagonal())
        return
    wanted = laplace(family, problem.design, problem.labels, mode, problem.variance)
    assert_near(covariance_of(state.belief), covariance_of(wanted))
    assert_near(
        covariance_of(state.belief), covariance if family == "full" else diagonal_blocks(covariance, 4)
    )


@pytest.mark.parametrize("family", PASSABLE)
def test_relinearising_a_quadratic_changes_nothing(family: str) -> None:
    """Gaussian observations in three batches: five passes are one pass, in any order."""
    problem = small_problem(rows=9)
    data, observed = observing(problem.design, problem.logits + 1.0, 3), {"observation": gaussian(0.3)}
    rule = RULES["iterated"]
    once, _ = stream.run(start(problem, family), data, rule, **observed)
    for passes, order in ((5, data), (1, data[::-1]), (2, data[::-1])):
        again, _ = stream.run(start(problem, family), order, rule, passes=passes, **observed)
        assert_near(again.belief.mean, once.belief.mean)
        assert_near(covariance_of(again.belief), covariance_of(once.belief))


@pytest.mark.parametrize("decay, process_noise", [(0.8, None), (1.0, 0.2), (0.7, 0.3)])
def test_a_drifting_stream_is_pyros_gaussian_hmm(decay: float, process_noise: float | None) -> None:
    """Pyro's HMM moves before its first observation and the filter does not: the HMM starts from the state
    that one step leads to the prior, (P₀ − q P₀) / γ²."""
    steps, classes, features, noise = 6, 2, 2, 0.5
    problem = small_problem(classes, features, steps, seed=1)
    values = torch.randn(steps, classes, generator=torch.Generator().manual_seed(2)).double()
    still = torch.zeros_like(problem.mean)
    space = StateSpace(decay, process_noise)
    data = observing(problem.design, values, 1)
    state = kalman.init(still, problem.variance, "full")
    state, infos = stream.run(state, data, RULES["expected"], space, observation=gaussian(noise))
    assert state.steps == len(infos) == steps

    size, variance = classes * features, problem.variance.reshape(-1)
    zero = torch.zeros(size).double()
    hmm = dist.GaussianHMM(
        dist.Normal(zero, ((variance - space.noise * variance) / decay**2).sqrt()).to_event(1),
        decay * torch.eye(size).double(),
        dist.Normal(zero, (space.noise * variance).sqrt()).to_event(1),
        jacobian(problem.design, classes).mT,
        dist.Normal(torch.zeros(classes).double(), noise**0.5).to_event(1),
        duration=steps,
    )
    last = hmm.filter(values)
    assert isinstance(state.belief, Full)
    assert_near(state.belief.mean.reshape(-1), last.mean)
    assert_near(state.belief.covariance, last.covariance_matrix)
    assert_near(torch.stack([info.prequential_score for info in infos]).sum(), hmm.log_prob(values))
    assert_near(torch.stack([info.change.log_evidence for info in infos]).sum(), hmm.log_prob(values))


@pytest.mark.parametrize("family", PASSABLE)
def test_decay_pulls_towards_a_prior_mean_that_is_not_zero(family: str) -> None:
    """A batch that says nothing (zero rows) after one that does: γ (m − m₀) remains, the prior's width stays
    what it was where nothing was learned."""
    problem = small_problem(rows=6)
    batch = Batch(problem.design, problem.labels)
    nothing = Batch(torch.zeros_like(problem.design), problem.labels)
    space = StateSpace(decay=0.9)
    learned, _ = kalman.update(start(problem, family), batch, RULES["iterated"], space)
    later, _ = kalman.update(learned, nothing, RULES["iterated"], space)
    assert_near(later.belief.mean, problem.mean + 0.9 * (learned.belief.mean - problem.mean))
    prior = covariance_of(start(problem, family).belief)
    wanted = 0.81 * covariance_of(learned.belief) + 0.19 * prior
    assert_near(covariance_of(later.belief), wanted)


@pytest.mark.parametrize("family", PASSABLE)
@pytest.mark.parametrize("rule", sorted(RULES))
def test_taking_out_what_was_put_in_restores_the_belief(family: str, rule: str) -> None:
    problem = small_problem(rows=12)
    first, second = batches_of(problem, 6)
    before, _ = kalman.update(start(problem, family), first, RULES[rule])
    after, _, site = kalman.put_in(before, second, RULES[rule])
    back = kalman.take_out(after, second, site)
    assert_near(back.belief.mean, before.belief.mean)
    assert_near(covariance_of(back.belief), covariance_of(before.belief))
    assert back.steps == before.steps
    assert float((after.belief.mean - before.belief.mean).abs().max()) > 0.01


@pytest.mark.parametrize("family", PASSABLE)
def test_the_first_batch_can_be_taken_out_after_the_second(family: str) -> None:
    """With Gaussian observations what remains is the second batch alone, on the prior."""
    problem = small_problem(rows=8)
    rule, observed = RULES["plain"], {"observation": gaussian(0.3)}
    first, second = observing(problem.design, problem.logits - 1.0, 4)
    state, _, site = kalman.put_in(start(problem, family), first, rule, **observed)
    state, _ = kalman.update(state, second, rule, **observed)
    alone, _ = kalman.update(start(problem, family), second, rule, **observed)
    remaining = kalman.take_out(state, first, site)
    assert_near(remaining.belief.mean, alone.belief.mean)
    assert_near(covariance_of(remaining.belief), covariance_of(alone.belief))


@pytest.mark.parametrize("family", PASSABLE)
@pytest.mark.parametrize("rule", sorted(RULES))
def test_passes_over_a_single_batch_never_count_it_twice(family: str, rule: str) -> None:
    problem = small_problem()
    data = batches_of(problem, 12)
    once, _ = stream.run(start(problem, family), data, RULES[rule])
    for passes in (2, 4):
        again, _ = stream.run(start(problem, family), data, RULES[rule], passes=passes)
        assert_near(again.belief.mean, once.belief.mean)
        assert_near(covariance_of(again.belief), covariance_of(once.belief))


@pytest.mark.parametrize("family", PASSABLE)
def test_passes_of_the_iterated_rule_approach_the_mode(family: str) -> None:
    problem = small_problem(rows=12)
    mode, covariance = mode_and_covariance(problem)
    distances = []
    for passes in (1, 3, 9, 40):
        state, _ = stream.run(
            start(problem, family), batches_of(problem, 4), RULES["iterated"], passes=passes
        )
        distances.append(float((state.belief.mean - mode).abs().max()))
    assert distances[0] > 1e-3
    assert distances[1] < distances[0] / 5 and distances[2] < max(distances[1] / 5, 1e-12)
    assert distances[3] < 1e-9
    if family == "full":
        assert_near(covariance_of(state.belief), covariance, 1e-8)


@pytest.mark.parametrize("family", ["class_block", "diagonal", "full"])
def test_an_offset_stands_for_the_part_of_the_mean_that_is_not_filtered(family: str) -> None:
    problem = small_problem()
    still = SmallProblem(problem.design, problem.labels, torch.zeros_like(problem.mean), problem.variance)
    batch = Batch(problem.design, problem.labels)
    moved = Batch(problem.design, problem.labels, problem.logits)
    for rule in RULES.values():
        whole, _ = kalman.update(start(problem, family), batch, rule)
        part, _ = kalman.update(start(still, family), moved, rule)
        assert_near(problem.mean + part.belief.mean, whole.belief.mean)
        assert_near(covariance_of(part.belief), covariance_of(whole.belief))


def test_prequential_score_is_the_log_probability_before_learning() -> None:
    """Against 10⁵ draws; the filter's own 128 antithetic draws are within a few per cent of a row's log p."""
    problem = small_problem(rows=6)
    _, info = kalman.update(
        start(problem, "class_block"), Batch(problem.design, problem.labels), RULES["plain"]
    )
    deviation = (problem.design.square() @ problem.variance.mT).sqrt()
    noise = torch.randn(100_000, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    averaged = (problem.logits + deviation * noise).softmax(-1).mean(0)
    wanted = averaged[range(6), problem.labels].log()
    assert abs(float(info.prequential_score - wanted.sum())) < 0.05 * float(wanted.abs().sum())
    assert info.rows == 6


def test_small_systems_are_solved_in_float64_whatever_the_beliefs_precision() -> None:
    problem = small_problem(variance=30.0)
    exact, _ = kalman.update(
        start(problem, "class_block"), Batch(problem.design, problem.labels), RULES["iterated"]
    )
    single = kalman.init(problem.mean.float(), problem.variance.float(), "class_block")
    batch = Batch(problem.design.float(), problem.labels)
    state, info = kalman.update(single, batch, RULES["iterated"])
    assert state.belief.mean.dtype == torch.float32 and info.change.dual.dtype == torch.float64
    assert_near(state.belief.mean.double(), exact.belief.mean, 1e-4)


def test_beliefs_stay_positive_over_many_batches_in_float32() -> None:
    problem = small_problem(classes=4, features=8, rows=120, variance=30.0, isotropic=True)
    single = kalman.init(problem.mean.float(), problem.variance.float(), "class_block")
    data = [Batch(batch.design.float(), batch.labels) for batch in batches_of(problem, 8)]
    for rule in ("expected", "iterated"):
        state, _ = stream.run(single, data, RULES[rule], passes=2)
        assert isinstance(state.belief, ClassBlock)
        assert float(torch.linalg.eigvalsh(state.belief.covariance).min()) > 0


@pytest.mark.parametrize(
    "family, passes, space, message",
    [
        ("diagonal", 2, StateSpace(), "--passes above 1 with --covariance diagonal"),
        ("class_block", 2, StateSpace(0.9), "--passes above 1 with --decay"),
        ("full", 3, StateSpace(1.0, 0.1), "--process-noise"),
        ("full", 0, StateSpace(), "--passes 0"),
    ],
)
def test_passes_that_make_no_sense_are_refused(
    family: str, passes: int, space: StateSpace, message: str
) -> None:
    problem = small_problem()
    with pytest.raises(UserError, match=message):
        stream.run(start(problem, family), batches_of(problem, 6), RULES["plain"], space, passes)
