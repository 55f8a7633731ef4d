from __future__ import annotations

import pytest
import torch
from naive_twins import log_joint, mode_and_covariance
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.inference.mode import find_mode, logits_of, mode_problem, rescaled, weights_of

PROBLEMS = {
    "more rows than features": small_problem(rows=20, isotropic=True),
    "fewer rows than features": small_problem(features=8, rows=6, isotropic=True),
    "a variance for every weight": small_problem(rows=20),
    "a wide prior": small_problem(rows=20, variance=100.0, isotropic=True),
    "a narrow prior": small_problem(rows=20, variance=1e-3, isotropic=True),
    "many classes": small_problem(classes=5, features=4, rows=30, isotropic=True, seed=3),
}


def mode_of(problem: SmallProblem) -> Tensor:
    solved = mode_problem(problem.design, problem.labels, problem.mean, problem.variance)
    return weights_of(solved, find_mode(solved))


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradient_of_the_log_joint_is_zero_at_the_mode(name: str) -> None:
    problem = PROBLEMS[name]
    gradient = torch.func.grad(lambda weights: log_joint(problem, weights))(mode_of(problem))
    scale = float((1 / problem.variance).max())
    assert float(gradient.abs().max()) < 1e-8 * max(1.0, scale)


@pytest.mark.parametrize("name", PROBLEMS)
def test_mode_is_the_one_that_lbfgs_finds(name: str) -> None:
    wanted, _ = mode_and_covariance(PROBLEMS[name])
    assert_near(mode_of(PROBLEMS[name]), wanted, 1e-8)


def test_repeated_rows_and_a_class_without_rows() -> None:
    problem = small_problem(classes=4, features=8, rows=6, isotropic=True)
    twice = problem.rows(torch.tensor([0, 0, 1, 1, 2]))
    assert 3 not in twice.labels
    wanted, _ = mode_and_covariance(twice)
    assert_near(mode_of(twice), wanted, 1e-8)


def test_logits_of_the_mode_are_those_of_its_weights() -> None:
    problem = PROBLEMS["fewer rows than features"]
    solved = mode_problem(problem.design, problem.labels, problem.mean, problem.variance)
    deviation = find_mode(solved)
    assert solved.axes is not None and deviation.shape[1] <= len(problem.design)
    assert_near(logits_of(solved, deviation), problem.design @ weights_of(solved, deviation).mT)


def test_rescaled_and_warm_started_is_the_mode_at_the_other_variance() -> None:
    problem = PROBLEMS["more rows than features"]
    solved = mode_problem(problem.design, problem.labels, problem.mean, problem.variance)
    wider = torch.full_like(problem.variance, 3.0)
    other = rescaled(solved, wider)
    wanted = mode_of(SmallProblem(problem.design, problem.labels, problem.mean, wider))
    assert_near(weights_of(other, find_mode(other, find_mode(solved))), wanted, 1e-8)
