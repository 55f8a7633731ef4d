"""Flat weights carried as they are, and site by site, against the same written out densely."""

from __future__ import annotations

import pytest
import torch
from small_problems import assert_near
from torch import Tensor
from two_encoders import isometry, random

from bayes_clip.carried_flat import SiteMap, carried_as_it_is, carried_by_site, disagreement
from bayes_clip.gaussian import Diagonal, Full, LowRankPrecision, VariationalDiagonal
from bayes_clip.inference.sites import WeightSite

FIRST, SECOND, RATIO, DECAY = 3, 5, 1.5, 0.8
BEFORE = WeightSite("own", torch.Size([2]), 0, 2), WeightSite("mapped", torch.Size([4, FIRST]), 2, 14)
AFTER = WeightSite("own", torch.Size([2]), 0, 2), WeightSite("mapped", torch.Size([4, SECOND]), 2, 22)
TURN = isometry(SECOND, FIRST)
UNTOLD = torch.eye(SECOND).double() - TURN @ TURN.mT
THROUGH = SiteMap(BEFORE, AFTER, {"mapped": 1}, RATIO * TURN, UNTOLD)
PRIOR, MEAN = torch.full((14,), 0.5).double(), random(22)
THERE = torch.cat([torch.full((2,), 0.5), torch.full((20,), 0.5 * RATIO**2)]).double()
DENSE = THROUGH(torch.eye(14).double())


def wanted(covariance: Tensor) -> Tensor:
    """V₂ − γ² K (V₁ − P) Kᵀ, to which the step comes down for a map that keeps lengths."""
    taken = torch.diag(PRIOR) - covariance
    return torch.diag(THERE) - DECAY**2 * DENSE @ taken @ DENSE.mT


def narrowed() -> Tensor:
    """A covariance below the prior's."""
    rows = random(6, 14, seed=3)
    return torch.linalg.inv(torch.diag(1 / PRIOR) + rows.mT @ rows)


def test_the_map_moves_the_axis_it_is_told() -> None:
    weights = random(14)
    moved = THROUGH(weights[:, None])[:, 0]
    assert torch.equal(moved[:2], weights[:2])
    assert_near(moved[2:].reshape(4, SECOND), weights[2:].reshape(4, FIRST) @ THROUGH.matrix.mT)
    turned = SiteMap(
        (WeightSite("up", torch.Size([FIRST, 4]), 0, 12),),
        (WeightSite("up", torch.Size([SECOND, 4]), 0, 20),),
        {"up": 0},
        THROUGH.matrix,
        UNTOLD,
    )
    grid = random(12)
    moved = turned(grid[:, None])[:, 0]
    assert_near(moved.reshape(SECOND, 4), THROUGH.matrix @ grid.reshape(FIRST, 4))
    assert_near(THROUGH.squared(PRIOR), (DENSE @ torch.diag(PRIOR) @ DENSE.mT).diagonal())


def test_a_full_covariance_takes_the_step_written_out() -> None:
    moved = carried_by_site(Full(random(14), narrowed()), MEAN, PRIOR, THERE, THROUGH, DECAY)
    assert isinstance(moved, Full)
    assert_near(moved.mean, MEAN)
    assert_near(moved.covariance, wanted(narrowed()))


@pytest.mark.parametrize("kind", [Diagonal, VariationalDiagonal])
def test_diagonals_keep_the_marginal_variances(kind: type) -> None:
    variance = random(14, seed=2).square().clamp(0.01, 0.4)
    belief = Diagonal(random(14), variance) if kind is Diagonal else kind(random(14), 1 / variance)
    moved = carried_by_site(belief, MEAN, PRIOR, THERE, THROUGH, DECAY)
    assert isinstance(moved, kind)
    assert_near(moved.variance, wanted(torch.diag(variance)).diagonal())


def test_low_rank_is_exact_where_the_rest_is_the_prior() -> None:
    rows = random(6, 14, seed=3)
    belief = LowRankPrecision(random(14), 1 / PRIOR, rows.mT.contiguous())
    moved = carried_by_site(belief, MEAN, PRIOR, THERE, THROUGH, DECAY)
    assert isinstance(moved, LowRankPrecision)
    precision = torch.diag(moved.diagonal) + moved.factor @ moved.factor.mT
    assert_near(torch.linalg.inv(precision), wanted(narrowed()))


def test_low_rank_stays_a_covariance_where_the_rest_is_uneven() -> None:
    rows, uneven = 30 * random(6, 14, seed=3), 1 / PRIOR + 50 * random(14, seed=5).square()
    belief = LowRankPrecision(random(14), uneven, rows.mT.contiguous())
    moved = carried_by_site(belief, MEAN, PRIOR, THERE, THROUGH, 1.0)
    assert isinstance(moved, LowRankPrecision)
    assert bool((moved.variance > 0).all()) and bool((moved.variance <= THERE + 1e-9).all())


def test_flat_weights_take_a_stationary_step() -> None:
    mean, prior = random(5), random(5, seed=1).square() + 0.1
    belief = Full(mean, torch.diag(0.2 * prior))
    still = carried_as_it_is(belief, 0 * mean, prior, 0.0)
    assert_near(still.mean, mean)
    assert_near(still.covariance, belief.covariance)
    moved = carried_as_it_is(belief, 0 * mean, prior, 1.0)
    assert_near(moved.mean, mean / 2**0.5)
    assert_near(moved.covariance, torch.diag(0.6 * prior))
    assert_near(carried_as_it_is(Diagonal(mean, prior), mean, prior, 7.0).variance, prior)


def test_what_all_logits_share_is_no_disagreement() -> None:
    logits = random(7, 4)
    assert disagreement(logits, logits + random(7, 1, seed=1)) < 1e-30
    assert disagreement(logits, logits + torch.tensor([1.0, -1, 1, -1])) == pytest.approx(1)
