from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_twins import jacobian, log_joint, mode_and_covariance
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from bayes_clip import observation
from bayes_clip.curvature import SoftmaxCurvature
from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES, Belief
from bayes_clip.gaussian.gram import BlockGram, DenseGram
from bayes_clip.inference import COVARIANCES, ENGINE_COVARIANCES, UPDATE_RULES, fixed_point, newton
from bayes_clip.inference.rules import (
    FIXED_POINT_STEPS,
    FIXED_POINT_TOLERANCE,
    NOISE_DRAWS,
    OTHER_RULES,
    RULES,
    BatchUpdate,
    expected,
    expected_from,
    find_rule,
    iterated,
    plain,
    spread_fraction,
)
from bayes_clip.observation import SOFTMAX, fixed_noise

FAMILY_NAMES = ("class_block", "full")


def gram_of(problem: SmallProblem, family: str) -> BlockGram | DenseGram:
    belief: Belief = FAMILIES[family].from_prior(problem.mean, problem.variance)
    return belief.project(problem.design).gram


def residual(logits: Tensor, labels: Tensor) -> Tensor:
    return SOFTMAX.target(labels, logits) - SOFTMAX.response(logits)


def logit_variance(problem: SmallProblem) -> Tensor:
    return (problem.design.square() @ problem.variance.mT).mean()


def apply(rule: str, problem: SmallProblem, family: str = "class_block") -> BatchUpdate:
    gram = gram_of(problem, family)
    return RULES[rule](SOFTMAX, gram, problem.logits, problem.labels, logit_variance(problem))


def test_a_rule_is_found_by_name_and_a_misspelled_one_is_refused() -> None:
    assert find_rule("plain") is plain
    with pytest.raises(UserError, match=r"--rule iterted: no such rule\. Did you mean 'iterated'"):
        find_rule("iterted")


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("variance", [1e-3, 0.5, 100.0])
def test_iterated_stops_where_the_dual_is_the_residual(family: str, variance: float) -> None:
    """z = z₀ + G a with a = y − p is the stationary point of the log joint density."""
    problem = small_problem(variance=variance)
    update = apply("iterated", problem, family)
    assert_near(update.dual, residual(update.logits, problem.labels))
    assert_near(update.logits, problem.logits + gram_of(problem, family).times(update.dual))
    mode, _ = mode_and_covariance(problem)
    assert_near(update.logits, problem.design @ mode.mT, 1e-8)


def test_log_evidence_of_iterated_is_the_laplace_log_normaliser() -> None:
    """log p(y | z*) − ½ (m − m₀)ᵀ P₀⁻¹ (m − m₀) − ½ log |P₀ Λ⁺|, all dense."""
    problem = small_problem()
    mode, covariance = mode_and_covariance(problem)
    prior = torch.diag(problem.variance.reshape(-1))
    wanted = log_joint(problem, mode) - torch.logdet(prior @ torch.linalg.inv(covariance)) / 2
    for family in FAMILY_NAMES:
        assert_near(apply("iterated", problem, family).log_evidence, wanted)


def test_log_evidence_tends_to_the_exact_one_for_a_narrow_prior() -> None:
    """Against 2·10⁵ draws from the prior, whose error here is below 1e-3 nats."""
    problem = small_problem(rows=4, variance=0.02)
    draws = torch.randn(200_000, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = problem.design @ (problem.mean + problem.variance.sqrt() * draws).mT
    rows = logits.log_softmax(-1)[:, range(4), problem.labels].sum(-1)
    wanted = rows.logsumexp(0) - torch.tensor(200_000.0, dtype=torch.float64).log()
    for rule in ("iterated", "expected"):
        assert abs(float(apply(rule, problem).log_evidence - wanted)) < 0.01


def test_plain_linearises_at_the_prediction() -> None:
    problem = small_problem()
    update = apply("plain", problem, "full")
    rows = jacobian(problem.design, 3).reshape(-1, 15)  # rows outermost
    gram = rows @ torch.diag(problem.variance.reshape(-1)) @ rows.mT
    probabilities = problem.logits.softmax(-1)
    curvature = torch.block_diag(*SoftmaxCurvature(probabilities).dense())
    innovation = residual(problem.logits, problem.labels).reshape(-1)
    dual = torch.linalg.solve(torch.eye(len(gram)).double() + curvature @ gram, innovation)
    assert_near(update.dual.reshape(-1), dual)
    assert update.iterations == 1


@pytest.mark.parametrize("rule", ["iterated", "plain"])
def test_a_block_gram_and_a_dense_one_give_the_same_update(rule: str) -> None:
    """From a prior without correlation between classes. `expected` is left out: its dense form keeps sites
    that couple the classes and its block form does not, so the two fixed points differ."""
    problem = small_problem(classes=4)
    block, dense = apply(rule, problem, "class_block"), apply(rule, problem, "full")
    for field in ("dual", "logits", "curvature", "linear", "log_evidence"):
        assert_near(getattr(block, field), getattr(dense, field))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_linear_term_and_dual_say_the_same(rule: str, family: str) -> None:
    """h = w z + a, and logits are z₀ + G a: the sites reproduce the posterior mean."""
    problem = small_problem()
    update = apply(rule, problem, family)
    assert_near(update.linear, update.curvature * update.logits + update.dual)
    assert_near(update.logits, problem.logits + gram_of(problem, family).times(update.dual))


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("variance", [0.05, 0.5, 5.0])
def test_expected_stops_at_its_fixed_point(family: str, variance: float) -> None:
    """linear = W z + (y − E[p]), so the dual is y − E[p], with E over the batch's posterior.

    For classes that are independent the update carries its sites, and the posterior is computed from them.
    """
    problem = small_problem(variance=variance)
    update = apply("expected", problem, family)
    gram = gram_of(problem, family)
    noise = fixed_noise(NOISE_DRAWS, problem.logits)
    shrink = spread_fraction(logit_variance(problem)).sqrt()
    if isinstance(gram, BlockGram):
        dual, deviation = gram.given_sites(update.curvature, update.linear, problem.logits)
        assert_near(dual, update.dual)
    else:
        posterior = DenseGram(gram.matrix - gram.matrix @ update.downdate @ gram.matrix, 3)
        deviation = posterior.deviation()
    mean, curvature = gram.expected(SOFTMAX, gram.samples(update.logits, shrink * deviation, noise))
    target = SOFTMAX.target(problem.labels, mean)
    assert_near(update.dual, target - mean, FIXED_POINT_TOLERANCE)
    assert_near(update.curvature, gram.own_class(curvature), 10 * FIXED_POINT_TOLERANCE)
    assert update.iterations < FIXED_POINT_STEPS, "it must converge before the steps run out"


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_expected_tends_to_iterated_for_a_narrow_prior(family: str) -> None:
    """Their duals differ by the spread of the logits (first order in v) plus the tolerance of the stop."""
    gaps = []
    for variance in (0.1, 1e-3):
        problem = small_problem(variance=variance)
        gap = apply("expected", problem, family).dual - apply("iterated", problem, family).dual
        gaps.append(float(gap.abs().max()))
    assert gaps[1] < 2 * FIXED_POINT_TOLERANCE < gaps[0]


def test_expected_tends_to_iterated_for_a_wide_prior() -> None:
    """There the spread that is averaged over is limited to nothing."""
    problem = small_problem(variance=1e4)
    wide, mode = apply("expected", problem), apply("iterated", problem)
    assert_near(wide.logits.softmax(-1), mode.logits.softmax(-1), 0.02)


def test_spread_fraction_falls_from_one_to_nothing() -> None:
    variances = torch.logspace(-3, 4, 50, dtype=torch.float64)
    fraction = spread_fraction(variances)
    assert (fraction.diff() < 0).all() and (fraction > 0).all() and (fraction <= 1).all()
    assert float(spread_fraction(torch.tensor(0.0))) == 1
    assert float(spread_fraction(torch.tensor(40.0))) == 0.5


@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(range(4)),
    offset=st.floats(-50, 50),
    seed=st.integers(0, 100),
    variance=st.sampled_from([0.01, 1.0, 30.0]),
    rule=st.sampled_from(["iterated", "plain"]),
)
def test_permuting_classes_and_a_common_offset_change_nothing_else(
    order: list[int], offset: float, seed: int, variance: float, rule: str
) -> None:
    problem = small_problem(classes=4, rows=8, seed=seed, variance=variance)
    gram = gram_of(problem, "class_block")
    assert isinstance(gram, BlockGram)
    arguments = logit_variance(problem)
    update = RULES[rule](SOFTMAX, gram, problem.logits, problem.labels, arguments)
    permuted = RULES[rule](
        SOFTMAX,
        BlockGram(gram.blocks[order]),
        problem.logits[:, order] + offset,
        torch.tensor(order).argsort()[problem.labels],
        arguments,
    )
    assert_near(permuted.dual, update.dual[:, order])
    assert_near(permuted.logits, update.logits[:, order] + offset)
    assert_near(permuted.downdate, update.downdate[order])
    assert_near(permuted.log_evidence, update.log_evidence)


@settings(max_examples=10, deadline=None)
@given(offset=st.floats(-50, 50), seed=st.integers(0, 100))
def test_a_common_offset_leaves_expected_unchanged(offset: float, seed: int) -> None:
    problem = small_problem(rows=8, seed=seed)
    gram = gram_of(problem, "class_block")
    update = expected(SOFTMAX, gram, problem.logits, problem.labels, logit_variance(problem))
    moved = expected(SOFTMAX, gram, problem.logits + offset, problem.labels, logit_variance(problem))
    assert_near(moved.dual, update.dual)
    assert_near(moved.downdate, update.downdate)


def test_permuting_classes_moves_expected_by_its_monte_carlo_error_alone() -> None:
    """Its fixed draws are tied to columns; about a per cent of a site, and the same for every order."""
    problem, order = small_problem(classes=4), [2, 0, 3, 1]
    gram = gram_of(problem, "class_block")
    assert isinstance(gram, BlockGram)
    update = expected(SOFTMAX, gram, problem.logits, problem.labels, logit_variance(problem))
    permuted = expected(
        SOFTMAX,
        BlockGram(gram.blocks[order]),
        problem.logits[:, order],
        torch.tensor(order).argsort()[problem.labels],
        logit_variance(problem),
    )
    assert_near(permuted.dual, update.dual[:, order], 0.03)


@pytest.mark.parametrize("rule", ["expected", "iterated", "plain"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("variance", [0.05, 5.0, 500.0])
def test_a_loop_that_never_looks_ends_where_the_one_that_does(
    rule: str, family: str, variance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where all steps are run and what is done is frozen."""
    problem = small_problem(variance=variance)
    looking = apply(rule, problem, family)
    for module in (fixed_point, newton):
        monkeypatch.setattr(module, "told", lambda flag: False)
    blind = apply(rule, problem, family)
    assert int(blind.iterations) == int(looking.iterations)
    for name in ("dual", "downdate", "logits", "curvature", "linear", "log_evidence"):
        assert_near(getattr(blind, name), getattr(looking, name), 1e-12)


@pytest.fixture
def pretended_cuda() -> Iterator[None]:
    """Tensors without numbers, also on a CUDA device that is not there: to read one is an error."""
    observation._kept_noise.cache_clear()
    with FakeTensorMode():
        yield
    observation._kept_noise.cache_clear()


@pytest.mark.usefixtures("pretended_cuda")
@pytest.mark.parametrize("rule", ["expected", "iterated", "plain"])
def test_nothing_computed_on_a_device_is_read(rule: str) -> None:
    blocks = torch.empty(5, 40, 40, dtype=torch.float64, device="cuda")
    predicted = torch.empty(40, 5, dtype=torch.float64, device="cuda")
    labels = torch.empty(40, dtype=torch.int64, device="cuda")
    variance = torch.empty((), dtype=torch.float64, device="cuda")
    update = RULES[rule](SOFTMAX, BlockGram(blocks, torch.float32), predicted, labels, variance)
    assert update.dual.is_cuda and update.downdate.shape == blocks.shape
    with pytest.raises(DataDependentOutputException):
        bool(update.log_evidence)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("rule", ["expected", "iterated", "plain"])
def test_nothing_waits_for_a_device(rule: str) -> None:
    problem = small_problem(classes=5, rows=20)
    gram = gram_of(problem, "class_block")
    assert isinstance(gram, BlockGram)
    gram = BlockGram(gram.blocks.cuda())
    arguments = problem.logits.cuda(), problem.labels.cuda(), logit_variance(problem).cuda()
    here = apply(rule, problem)
    RULES[rule](SOFTMAX, gram, *arguments)  # draws and libraries are made at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = RULES[rule](SOFTMAX, gram, *arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_near(there.dual.cpu(), here.dual)
    assert_near(there.downdate.cpu(), here.downdate)


@pytest.mark.parametrize("rule", ["expected", "iterated"])
def test_a_belief_in_single_precision_is_searched_in_it_and_concluded_in_double(rule: str) -> None:
    """The same sites to the tolerance of the search, and a dual that belongs to them to rounding."""
    problem = small_problem(rows=40, classes=5, variance=5.0)
    gram = gram_of(problem, "class_block")
    assert isinstance(gram, BlockGram)
    arguments = problem.logits, problem.labels, logit_variance(problem)
    exact = RULES[rule](SOFTMAX, gram, *arguments)
    single = RULES[rule](SOFTMAX, BlockGram(gram.blocks.float()).double(), *arguments)
    assert single.dual.dtype == single.downdate.dtype == torch.float64
    assert_near(single.dual, exact.dual, 2 * FIXED_POINT_TOLERANCE if rule == "expected" else 1e-5)
    assert_near(single.logits, problem.logits + gram.times(single.dual), 1e-5)


def test_expected_goes_on_in_double_where_single_precision_breaks_down() -> None:
    """A Gram matrix of rank 2 and a logit variance of 10⁶: its float32 systems have no Cholesky factor."""
    problem = small_problem(features=2, rows=30, variance=1e6)
    gram = gram_of(problem, "class_block")
    assert isinstance(gram, BlockGram)
    arguments = problem.logits, problem.labels, logit_variance(problem)
    rough = BlockGram(gram.blocks, torch.float32)
    update, exact = (expected(SOFTMAX, each, *arguments) for each in (rough, gram))
    assert_near(update.logits, exact.logits, 1e-6)
    assert_near(update.downdate, exact.downdate, 1e-6)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_expected_from_its_own_sites_is_there_at_once(family: str) -> None:
    problem = small_problem(variance=5.0)
    gram = gram_of(problem, family)
    arguments = SOFTMAX, gram, problem.logits, problem.labels, logit_variance(problem)
    cold = expected(*arguments)
    precision = torch.diag_embed(cold.curvature) if family == "full" else cold.curvature
    warm = expected_from(precision, cold.linear)(*arguments)
    assert int(warm.iterations) <= (1 if family == "class_block" else int(cold.iterations))
    assert_near(warm.dual, cold.dual, 2 * FIXED_POINT_TOLERANCE)


@pytest.mark.parametrize("rule", ["expected", "iterated", "plain"])
def test_one_row_is_a_batch_like_any_other(rule: str) -> None:
    """Its 1 by 1 Gram blocks are inverted in closed form; the dense twin solves."""
    problem = small_problem(rows=1, classes=4, variance=2.0)
    block, dense = apply(rule, problem, "class_block"), apply(rule, problem, "full")
    tolerance = 1e-9 if rule != "expected" else 0.1  # dense sites couple the classes
    assert_near(block.dual, dense.dual, tolerance)
    assert_near(block.logits, problem.logits + gram_of(problem, "class_block").times(block.dual))


def test_updates_are_the_same_at_every_call() -> None:
    problem = small_problem()
    for rule in RULES:
        assert torch.equal(apply(rule, problem).downdate, apply(rule, problem).downdate)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_certain_and_wrong_predictions_stay_finite(family: str) -> None:
    problem = small_problem(variance=30.0)
    gram = gram_of(problem, family)
    wrong = torch.full_like(problem.logits, -300.0)
    wrong[range(len(wrong)), (problem.labels + 1) % 3] = 300.0
    for rule in (iterated, expected, plain):
        update = rule(SOFTMAX, gram, wrong, problem.labels, logit_variance(problem))
        for field in ("dual", "downdate", "logits", "curvature", "linear", "log_evidence"):
            assert getattr(update, field).isfinite().all(), (rule.__name__, field)


def test_every_rule_and_covariance_is_described() -> None:
    assert UPDATE_RULES.keys() == RULES.keys() | OTHER_RULES.keys()
    assert COVARIANCES.keys() == FAMILIES.keys() | {name for of in ENGINE_COVARIANCES.values() for name in of}
