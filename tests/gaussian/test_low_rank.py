from __future__ import annotations

import pytest
import torch
from dense_twins import dense_precision, plain_step, precision_update, rows_of, truncated
from naive_twins import softmax_curvature
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.gaussian.full import Full
from bayes_clip.gaussian.low_rank import LowRankPrecision


def random_design(kind: str, seed: int, rows: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 5) if kind == "shared" else (rows, 3, 15)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def start(kind: str, rank: int) -> LowRankPrecision:
    problem = small_problem(seed=3)
    if kind == "shared":
        return LowRankPrecision.from_prior(problem.mean, problem.variance, rank)
    return LowRankPrecision.from_prior(problem.mean.reshape(-1), problem.variance.reshape(-1), rank)


KINDS = ("shared", "jacobian")
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rank", [1, 4, 15])
def test_batches_are_the_svd_by_the_book(kind: str, rank: int) -> None:
    """Dense mean update, SVD of [W, Hᵀ R^½] written out, the rest's diagonal folded in; three batches."""
    belief = start(kind, rank)
    for seed in range(3):
        design = random_design(kind, seed)
        rows, mean = rows_of(design, 3), belief.mean.reshape(-1)
        probabilities = (rows @ mean).softmax(-1)
        curvature = softmax_curvature(probabilities)
        residual = torch.eye(3, dtype=torch.float64)[LABELS] - probabilities
        wanted_mean, _ = precision_update(mean, dense_precision(belief), rows, curvature, residual)
        values, vectors = torch.linalg.eigh(curvature)
        roots = rows.mT @ (vectors * values.clamp_min(0).sqrt()[:, None, :])
        whole = torch.cat([belief.factor.reshape(15, -1), *roots], dim=1)
        diagonal, factor = truncated(belief.diagonal.reshape(-1), whole, rank)
        belief = plain_step(belief, design, LABELS)
        assert_near(belief.mean.reshape(-1), wanted_mean)
        assert_near(belief.diagonal.reshape(-1), diagonal)
        assert_near(dense_precision(belief), torch.diag(diagonal) + factor @ factor.mT)


def test_at_full_rank_it_is_the_full_covariance() -> None:
    first, second = small_problem(seed=3), small_problem(rows=9, seed=4)
    belief = LowRankPrecision.from_prior(first.mean, first.variance, rank=15)
    full = Full.from_prior(first.mean, first.variance)
    for batch in (first, second):
        belief = plain_step(belief, batch.design, batch.labels)
        full = plain_step(full, batch.design, batch.labels)
        assert_near(belief.mean, full.mean)
        assert_near(torch.linalg.inv(dense_precision(belief)), full.covariance)
    assert_near(belief.diagonal, 1 / first.variance)


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_of_the_precision_is_exact_at_any_rank(kind: str) -> None:
    ranks = {}
    for rank in (2, 15):
        belief = plain_step(start(kind, rank), random_design(kind, 0), LABELS)
        ranks[rank] = dense_precision(belief).diagonal()
    assert_near(ranks[2], ranks[15])


@pytest.mark.parametrize("kind", KINDS)
def test_projection_moments_and_draws_are_those_of_the_dense_covariance(kind: str) -> None:
    belief = plain_step(start(kind, 2), random_design(kind, 0), LABELS)
    design = random_design(kind, 1, rows=70)
    rows = rows_of(design, 3)
    covariance = torch.linalg.inv(dense_precision(belief))
    flat = rows[:4].transpose(0, 1).reshape(12, -1)
    assert_near(belief.project(design[:4]).gram.matrix, flat @ covariance @ flat.mT)
    wanted = rows @ covariance @ rows.mT
    mean, variance = belief.logit_moments(design)
    assert_near(mean, rows @ belief.mean.reshape(-1))
    assert_near(variance, wanted.diagonal(dim1=1, dim2=2))
    units = torch.eye(3, dtype=torch.float64)[:, None, :].expand(-1, 70, -1)
    root = (belief.predicted_logits(design).draw(units) - mean).permute(1, 2, 0)
    assert_near(root @ root.mT, wanted)


@pytest.mark.parametrize("rank", [2, 6])
def test_draws_take_the_root_in_either_form(rank: int) -> None:
    """Below the number of classes by low-rank algebra, from there on by the rows' own covariance."""
    belief = plain_step(start("shared", rank), random_design("shared", 0), LABELS)
    design = random_design("shared", 1)
    units = torch.eye(3, dtype=torch.float64)[:, None, :].expand(-1, 6, -1)
    root = (belief.predicted_logits(design).draw(units) - design @ belief.mean.mT).permute(1, 2, 0)
    rows = rows_of(design, 3)
    assert_near(root @ root.mT, rows @ torch.linalg.inv(dense_precision(belief)) @ rows.mT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_time_step_is_exact_also_with_a_decay_for_every_weight(kind: str) -> None:
    belief = plain_step(start(kind, 4), random_design(kind, 0), LABELS)
    generator = torch.Generator().manual_seed(1)
    decay = torch.rand(belief.mean.shape, generator=generator, dtype=torch.float64) + 0.2
    noise = torch.rand(belief.mean.shape, generator=generator, dtype=torch.float64)
    before = torch.linalg.inv(dense_precision(belief))
    for step_decay in (0.9, decay):
        moved = belief.diffuse(torch.ones_like(belief.mean), step_decay, noise)
        scale = torch.as_tensor(step_decay, dtype=torch.float64).expand(belief.mean.shape)
        wanted = scale.reshape(-1, 1) * before * scale.reshape(-1) + torch.diag(noise.reshape(-1))
        assert_near(torch.linalg.inv(dense_precision(moved)), wanted)
        assert_near(moved.mean, 1 + scale * (belief.mean - 1))


def test_rank_is_carried_by_the_factor_and_never_above_the_number_of_weights() -> None:
    mean = torch.zeros(3, 5)
    assert LowRankPrecision.from_prior(mean, torch.ones(3, 5)).factor.shape == (3, 5, 15)
    assert LowRankPrecision.from_prior(mean, torch.ones(3, 5), rank=4).factor.shape == (3, 5, 4)
