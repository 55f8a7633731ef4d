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
    drawn = Point(problem.mean).predicted_logits(problem.design).draw(torch.randn(2, 4, 3))
    assert_near(drawn, problem.logits.expand(2, 4, 3))


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
    keys = torch.zeros(4, dtype=torch.long)
    for at_once, sizes in ((5, [5]), (2, [2, 2, 1]), (0, [1] * 5)):
        blocks = list(Draws(samples).predicted_logits(problem.design).streamed(keys, 5, 12 * at_once))
        assert [len(block) for block in blocks] == sizes
        assert_near(torch.cat(blocks), problem.design @ samples[::2].mT)


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


def test_low_rank_draws_have_the_covariance_of_the_dense_one() -> None:
    """Draws are linear in the noise, so unit vectors as noise read off the root of the covariance."""
    belief, design = low_rank(), small_problem(rows=4).design
    predicted = belief.predicted_logits(design)
    assert predicted.width == 3 + 2
    units = torch.eye(5, dtype=torch.float64)[:, None, :].expand(-1, 4, -1)
    root = (predicted.draw(units) - design @ belief.mean.mT).permute(1, 2, 0)
    flat = belief.factor.reshape(15, 2)
    covariance = torch.diag(belief.variance.reshape(-1)) + flat @ flat.mT
    rows = jacobian(design, 3)
    wanted = rows @ covariance @ rows.mT
    assert_near(root @ root.mT, wanted)
    assert_near(predicted.variance, wanted.diagonal(dim1=1, dim2=2))
    through = LowRank(belief.mean.reshape(-1), belief.variance.reshape(-1), flat).predicted_logits(rows)
    root = (through.draw(units[:3, :, :3]) - through.mean).permute(1, 2, 0)
    assert_near(root @ root.mT, wanted)
