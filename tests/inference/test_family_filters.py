"""The filter under every covariance: what holds whatever its structure, and where they meet."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from dense_twins import dense_precision
from naive_twins import mode_and_covariance, softmax_curvature
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES, Full, Kronecker, LowRankPrecision, VariationalDiagonal
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.laplace import laplace
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.rules import FIXED_POINT_STEPS, RULES
from bayes_clip.model import AdapterModel, Context

FAMILY_NAMES = sorted(FAMILIES)


class Scaled(AdapterModel):
    """Class weights that pass through tanh: logits that are not linear in them."""

    def prior(self) -> dict[str, dist.Normal]:
        return {"weights": dist.Normal(self.text_features, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs @ torch.tanh(weights["weights"]).mT


def small_program() -> tuple[Program, Tensor, Tensor]:
    problem = small_problem(seed=2)
    context = Context(problem.mean, ("a", "b", "c"), 2.0)
    return read_program(Scaled(context, 0.1), problem.design), problem.design, problem.labels


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("variance", [0.5, 5.0])
def test_the_expected_rule_settles(family: str, variance: float) -> None:
    """Fixed draws through a root that moves smoothly: the fixed point is reached, not only circled."""
    problem = small_problem(classes=5, features=8, rows=15, variance=variance, isotropic=True)
    state = kalman.init(problem.mean, problem.variance, family)
    for rows in torch.arange(15).split(5):
        state, info = kalman.update(
            state, Batch(problem.design[rows], problem.labels[rows]), RULES["expected"]
        )
        assert info.change.iterations < FIXED_POINT_STEPS / 2


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_first_batch_iterated_is_the_mode_whatever_the_covariance(family: str) -> None:
    """The mean's step is exact from a diagonal prior; only what is kept of the covariance differs."""
    problem = small_problem(classes=4, rows=18, isotropic=True)
    state = kalman.init(problem.mean, problem.variance, family)
    state, _ = kalman.update(state, Batch(problem.design, problem.labels), RULES["iterated"])
    mode, covariance = mode_and_covariance(problem)
    assert_near(state.belief.mean, mode)
    if isinstance(state.belief, LowRankPrecision):  # its default rank is above the 20 weights
        assert_near(dense_precision(state.belief), torch.linalg.inv(covariance))
    if isinstance(state.belief, VariationalDiagonal):
        assert_near(state.belief.precision.reshape(-1), torch.linalg.inv(covariance).diagonal())


def test_kronecker_laplace_is_the_naive_sum_and_the_filter_of_one_batch() -> None:
    problem = small_problem(classes=4, rows=18, isotropic=True)
    mode, _ = mode_and_covariance(problem)
    belief = laplace("kronecker", problem.design, problem.labels, mode, problem.variance)
    assert isinstance(belief, Kronecker)
    curvature = softmax_curvature((problem.design @ mode.mT).softmax(-1)).sum(0)
    moment = sum(torch.outer(row, row) for row in problem.design)
    wanted = torch.diag(1 / problem.variance.reshape(-1)) + torch.kron(curvature, moment) / 18
    assert_near(dense_precision(belief), wanted)
    state = kalman.init(problem.mean, problem.variance, "kronecker")
    state, _ = kalman.update(state, Batch(problem.design, problem.labels), RULES["iterated"])
    assert isinstance(state.belief, Kronecker)
    assert_near(state.belief.mean, mode)
    assert_near(dense_precision(state.belief), wanted)


def test_programs_that_are_no_head_learn_in_precision_form() -> None:
    """At one batch low rank of all weights is the full covariance, and the variational diagonal the diagonal
    of its inverse; a second batch stays finite and narrows."""
    program, inputs, labels = small_program()
    states = {
        family: kalman.init(program.prior_mean, program.prior_variance, family)
        for family in ("full", "low_rank", "diagonal_variational")
    }
    first = {
        family: kalman.update(state, program.batch(inputs[:8], labels[:8]), RULES["iterated"])[0]
        for family, state in states.items()
    }
    full, low, own = (first[family].belief for family in states)
    assert isinstance(full, Full)
    assert isinstance(low, LowRankPrecision) and isinstance(own, VariationalDiagonal)
    information = torch.linalg.inv(full.covariance)
    assert_near(low.mean, full.mean, 1e-8)
    assert_near(own.mean, full.mean, 1e-8)
    assert_near(dense_precision(low), information, 1e-7)
    assert_near(own.precision.reshape(-1), information.diagonal(), 1e-7)
    for family in ("low_rank", "diagonal_variational"):
        state, _ = kalman.update(first[family], program.batch(inputs[8:], labels[8:]), RULES["expected"])
        before, after = (kept.belief.variance for kept in (first[family], state))
        assert bool(after.isfinite().all()) and bool((after <= before * (1 + 1e-9)).all())


def test_the_kronecker_product_refuses_what_is_no_head() -> None:
    program, inputs, labels = small_program()
    with pytest.raises(UserError, match=r"takes .* a linear head"):
        state = kalman.init(program.prior_mean, program.prior_variance, "kronecker")
        kalman.update(state, program.batch(inputs, labels), RULES["iterated"])
