from __future__ import annotations

import torch
from naive_twins import jacobian
from small_problems import assert_near, small_problem

from bayes_clip.gaussian.point import DRAWS_PER_CHUNK, Draws, LowRank, Point


def test_a_point_has_no_variance_and_all_draws_alike() -> None:
    problem = small_problem(rows=4)
    mean, variance = Point(problem.mean).logit_moments(problem.design)
    assert_near(mean, problem.logits)
    assert not variance.any()
    assert_near(
        Point(problem.mean).sample_logits(problem.design, torch.randn(2, 4, 3)),
        problem.logits.expand(2, 4, 3),
    )


def test_moments_of_draws_are_sample_moments_over_several_chunks() -> None:
    problem = small_problem(rows=4)
    samples = torch.randn(2 * DRAWS_PER_CHUNK + 5, 3, 5, dtype=torch.float64) + 3
    logits = problem.design @ samples.mT
    mean, variance = Draws(samples).logit_moments(problem.design)
    assert_near(mean, logits.mean(0))
    assert_near(variance, logits.var(0, correction=0))
    assert_near(Draws(samples).mean, samples.mean(0))


def test_draws_of_logits_are_the_chains_own_evenly_spaced() -> None:
    problem = small_problem(rows=4)
    samples = torch.randn(9, 3, 5, dtype=torch.float64)
    logits = Draws(samples).sample_logits(problem.design, torch.zeros(5, 4, 3))
    assert_near(logits, problem.design @ samples[::2].mT)


def low_rank() -> LowRank:
    generator = torch.Generator().manual_seed(3)
    factor = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    problem = small_problem()
    return LowRank(problem.mean, problem.variance, factor)


def test_low_rank_moments_are_those_of_the_dense_covariance() -> None:
    belief, problem = low_rank(), small_problem(rows=4)
    flat = belief.factor.reshape(15, 2)
    covariance = torch.diag(belief.variance.reshape(-1)) + flat @ flat.mT
    rows = jacobian(problem.design, 3)
    wanted = (rows @ covariance @ rows.mT).diagonal(dim1=1, dim2=2)
    mean, variance = belief.logit_moments(problem.design)
    assert_near(mean, problem.logits)
    assert_near(variance, wanted)


def test_low_rank_draws_share_the_factor_between_classes() -> None:
    """Sample covariance of 40,000 draws: its error is about half a per cent of the variances."""
    belief, problem = low_rank(), small_problem(rows=2)
    noise = torch.randn(40_000, 2, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    draws = belief.sample_logits(problem.design, noise)
    flat = belief.factor.reshape(15, 2)
    covariance = torch.diag(belief.variance.reshape(-1)) + flat @ flat.mT
    rows = jacobian(problem.design, 3)
    for row in range(2):
        wanted = rows[row] @ covariance @ rows[row].mT
        assert_near(torch.cov(draws[:, row].mT), wanted, 0.03)
        shared = wanted - torch.diag(wanted.diagonal())
        assert float(shared.abs().max()) > 2 * 0.03 * float(wanted.abs().max()), "too little to tell"
