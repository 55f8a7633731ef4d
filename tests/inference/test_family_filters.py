"""The filter under every covariance: what holds whatever its structure, and where they meet."""

from __future__ import annotations

import pytest
import torch
from dense_twins import dense_precision
from naive_twins import mode_and_covariance, softmax_curvature
from small_problems import assert_near, small_problem

from bayes_clip.gaussian import FAMILIES, Kronecker, LowRankPrecision, VariationalDiagonal
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.laplace import laplace
from bayes_clip.inference.rules import FIXED_POINT_STEPS, RULES

FAMILY_NAMES = sorted(FAMILIES)


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
