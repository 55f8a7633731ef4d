"""Classes that come and go where the belief is kept in precision form."""

from __future__ import annotations

import pytest
import torch
from dense_twins import dense_precision, plain_step
from small_problems import assert_near, small_problem

from bayes_clip.errors import UserError
from bayes_clip.gaussian import Kronecker, LowRankPrecision, VariationalDiagonal
from bayes_clip.gaussian.classes import with_classes, without_class

PROBLEM = small_problem(isotropic=True)


def learned(rank: int | None) -> LowRankPrecision | VariationalDiagonal:
    """Low rank of so many columns, or the variational diagonal for none, after one batch."""
    if rank is None:
        prior: LowRankPrecision | VariationalDiagonal = VariationalDiagonal.from_prior(
            PROBLEM.mean, PROBLEM.variance
        )
    else:
        prior = LowRankPrecision.from_prior(PROBLEM.mean, PROBLEM.variance, rank)
    return plain_step(prior, PROBLEM.design, PROBLEM.labels)


@pytest.mark.parametrize("rank", [None, 4, 15])
def test_a_class_that_goes_leaves_the_marginal_of_the_others(rank: int | None) -> None:
    belief = learned(rank)
    rest = without_class(belief, 1)
    kept = torch.cat([torch.arange(0, 5), torch.arange(10, 15)])
    covariance = torch.linalg.inv(dense_precision(belief))[kept][:, kept]
    assert isinstance(rest, LowRankPrecision | VariationalDiagonal)
    assert_near(torch.linalg.inv(dense_precision(rest)), covariance)
    assert_near(rest.mean, belief.mean[[0, 2]])


@pytest.mark.parametrize("rank", [None, 4, 15])
def test_a_class_that_comes_is_a_prior_block_of_its_own(rank: int | None) -> None:
    belief = learned(rank)
    more = with_classes(belief, torch.ones(2, 5).double(), torch.full((2, 5), 0.3, dtype=torch.float64))
    assert isinstance(more, LowRankPrecision | VariationalDiagonal)
    wanted = torch.block_diag(dense_precision(belief), torch.eye(10).double() / 0.3)
    assert_near(dense_precision(more), wanted)
    assert torch.equal(more.mean[:3], belief.mean)


def test_the_kronecker_product_takes_no_class_in_or_out() -> None:
    belief = Kronecker.from_prior(PROBLEM.mean, PROBLEM.variance)
    with pytest.raises(UserError, match="classes cannot come or go"):
        without_class(belief, 0)
