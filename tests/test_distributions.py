from __future__ import annotations

import pytest
import torch
from dense_twins import PrecisionBelief, dense_precision, plain_step
from small_problems import assert_near, small_problem
from torch.distributions import MultivariateNormal

from bayes_clip.distributions import Drawn
from bayes_clip.gaussian.kronecker import Kronecker
from bayes_clip.gaussian.low_rank import LowRankPrecision


@pytest.fixture(params=["kronecker", "low_rank"])
def belief(request: pytest.FixtureRequest) -> PrecisionBelief:
    """A belief that a batch has shaped."""
    problem = small_problem(isotropic=True)
    if request.param == "kronecker":
        prior: PrecisionBelief = Kronecker.from_prior(problem.mean, problem.variance)
    else:
        prior = LowRankPrecision.from_prior(problem.mean, problem.variance, rank=4)
    return plain_step(prior, problem.design, problem.labels)


def test_density_and_moments_are_those_of_the_dense_gaussian(belief: PrecisionBelief) -> None:
    wanted = MultivariateNormal(belief.mean.reshape(-1), precision_matrix=dense_precision(belief))
    drawn = Drawn(belief)
    values = torch.randn(2, 4, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_near(drawn.log_prob(values), wanted.log_prob(values))
    assert_near(drawn.log_prob(values[0, 0]), wanted.log_prob(values[0, 0]))
    assert_near(drawn.mean, wanted.mean)
    assert_near(drawn.variance, wanted.variance)


def test_draws_have_the_dense_covariance(belief: PrecisionBelief) -> None:
    """They are linear in the noise, so unit vectors as noise read off a root of the covariance."""
    units = torch.eye(15, dtype=torch.float64).reshape(15, 3, 5)
    root = (belief.weights_from(units) - belief.mean).reshape(15, 15)
    assert_near(root.mT @ root, torch.linalg.inv(dense_precision(belief)))
    assert Drawn(belief).rsample((2, 6)).shape == (2, 6, 15)
    assert Drawn(belief).rsample().shape == (15,)
