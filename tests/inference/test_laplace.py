from __future__ import annotations

import pytest
import torch
from naive_twins import diagonal_blocks, mode_and_covariance
from small_problems import assert_near, small_problem

from bayes_clip.gaussian import ClassBlock, Diagonal, Full
from bayes_clip.inference import laplace as laplace_module
from bayes_clip.inference.laplace import laplace

PROBLEM = small_problem(classes=4, rows=18, seed=2)
MODE, COVARIANCE = mode_and_covariance(PROBLEM)
ARGUMENTS = (PROBLEM.design, PROBLEM.labels, MODE, PROBLEM.variance)


def test_full_is_the_inverse_hessian() -> None:
    belief = laplace("full", *ARGUMENTS)
    assert isinstance(belief, Full)
    assert_near(belief.mean, MODE)
    assert_near(belief.covariance, COVARIANCE)


def test_class_block_is_its_diagonal_blocks() -> None:
    belief = laplace("class_block", *ARGUMENTS)
    assert isinstance(belief, ClassBlock)
    assert_near(belief.covariance, diagonal_blocks(COVARIANCE, 4))


@pytest.mark.parametrize("isotropic", [True, False])
def test_class_block_of_fewer_rows_than_features(isotropic: bool) -> None:
    problem = small_problem(classes=4, features=9, rows=12, seed=2, isotropic=isotropic)
    mode, covariance = mode_and_covariance(problem)
    belief = laplace("class_block", problem.design, problem.labels, mode, problem.variance)
    assert isinstance(belief, ClassBlock)
    assert_near(belief.covariance, diagonal_blocks(covariance, 4))


def test_diagonal_inverts_the_diagonal_of_the_precision() -> None:
    belief = laplace("diagonal", *ARGUMENTS)
    assert isinstance(belief, Diagonal)
    precision = torch.linalg.inv(COVARIANCE)
    assert_near(belief.variance.reshape(-1), 1 / precision.diagonal())


def test_large_problems_in_one_batch_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laplace_module, "MOST_JOINT_ROWS", 4)
    belief = laplace("class_block", *ARGUMENTS)
    assert isinstance(belief, ClassBlock)
    assert_near(belief.covariance, diagonal_blocks(COVARIANCE, 4))


def test_large_problems_in_many_batches_lie_between_no_coupling_and_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """72 rows in three batches: the classes are coupled within each batch and not between batches."""
    problem = small_problem(classes=4, rows=72, seed=2)
    mode, covariance = mode_and_covariance(problem)
    monkeypatch.setattr(laplace_module, "MOST_JOINT_ROWS", 4)
    belief = laplace("class_block", problem.design, problem.labels, mode, problem.variance)
    assert isinstance(belief, ClassBlock)
    assert_near(belief.mean, mode)
    variance = belief.covariance.diagonal(dim1=1, dim2=2)
    coupled = diagonal_blocks(covariance, 4)
    uncoupled = torch.linalg.inv(diagonal_blocks(torch.linalg.inv(covariance), 4))
    assert (variance < coupled.diagonal(dim1=1, dim2=2)).all()
    assert (variance > uncoupled.diagonal(dim1=1, dim2=2)).all()
