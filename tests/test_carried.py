"""Beliefs about heads carried through a map, against the same written out densely."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from small_problems import assert_near
from torch import Tensor
from two_encoders import isometry, random, unit_rows

from bayes_clip.carried import HeadPrior, carried_head, class_blocks
from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FeatureMap, fit_map
from bayes_clip.gaussian import FAMILIES, ClassBlock
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.kalman import init, update
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import find_rule

CLASSES, FIRST, SECOND = 3, 6, 8
SCALES = 30.0, 20.0
VARIANCE = 0.02
RATIO = SCALES[0] / SCALES[1]
TEXT = unit_rows(CLASSES, FIRST, 5)
TURN = isometry(SECOND, FIRST)
PRIOR = HeadPrior(TEXT, torch.full_like(TEXT, VARIANCE), SCALES[0])
THERE = HeadPrior(
    RATIO * TEXT @ TURN.mT, torch.full((CLASSES, SECOND), RATIO**2 * VARIANCE, dtype=torch.float64), SCALES[1]
)
ROWS = unit_rows(50, FIRST)
EXACT = fit_map(ROWS, ROWS @ TURN.mT, "procrustes")


def fitted(family: str):
    """What a filter of this family knows of the first head after a batch."""
    state = init(PRIOR.mean, PRIOR.variance, family)
    batch = Batch(SCALES[0] * ROWS[:9], torch.arange(9) % CLASSES)
    return update(state, batch, find_rule("expected"))[0].belief


def with_residual(much: float) -> FeatureMap:
    return replace(EXACT, residual=much * torch.eye(FIRST).double() / FIRST)


@pytest.mark.parametrize("family", ["class_block", "full", "kronecker", "low_rank"])
def test_a_rotated_encoder_is_told_the_same(family: str) -> None:
    before = fitted(family)
    after = carried_head(before, PRIOR, THERE, EXACT)
    assert_near(after.decay, torch.ones(CLASSES).double())
    told = after.belief.logit_moments(SCALES[1] * ROWS @ TURN.mT)
    for said, wanted in zip(told, before.logit_moments(SCALES[0] * ROWS), strict=True):
        assert_near(said, wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_identity_changes_nothing_but_the_family(family: str) -> None:
    same = FeatureMap(
        *2 * [torch.eye(FIRST).double()], torch.zeros(FIRST, FIRST).double(), "procrustes", 50, 1.0
    )
    before = fitted(family)
    after = carried_head(before, PRIOR, PRIOR, same).belief
    assert_near(after.mean, before.mean)
    assert_near(class_blocks(after), class_blocks(before))
    keeps = family in ("class_block", "diagonal", "diagonal_variational")
    assert type(after) is (type(before) if keeps else ClassBlock)


def test_labels_meet_another_zero_shot_as_if_they_had_been_learned_there() -> None:
    """Gaussian observations: the posterior of the same data under the second prior, rotated."""
    data, seen = random(9, FIRST, seed=2), random(9, CLASSES, seed=3)
    covariance = torch.linalg.inv(torch.eye(FIRST).double() / VARIANCE + data.mT @ data)
    before = ClassBlock((TEXT / VARIANCE + seen.mT @ data) @ covariance, covariance.expand(CLASSES, -1, -1))
    centre = TEXT + 0.3 * random(CLASSES, FIRST, seed=4)
    there = replace(THERE, mean=RATIO * centre @ TURN.mT)
    wanted = (centre / VARIANCE + seen.mT @ data) @ covariance
    # without a residual of the map: what it is charged for is another test
    after = carried_head(before, PRIOR, there, with_residual(0.0), centre).belief
    assert_near(after.mean, RATIO * wanted @ TURN.mT)
    plain = carried_head(before, PRIOR, there, with_residual(0.0)).belief
    assert float((plain.mean - after.mean).abs().max()) > 0.01
    assert_near(class_blocks(plain), class_blocks(after))


def test_the_prior_is_carried_to_the_prior_whatever_the_residual() -> None:
    for much in (0.0, 0.5):
        after = carried_head(
            init(PRIOR.mean, PRIOR.variance, "class_block").belief, PRIOR, THERE, with_residual(much)
        )
        assert_near(after.belief.mean, THERE.mean)
        assert_near(class_blocks(after.belief), torch.diag_embed(THERE.variance))


def test_moments_are_those_of_the_step_written_out() -> None:
    """Joint Gaussian of w and n, and the linear map of both, class by class."""
    mapped = with_residual(0.3)
    before = fitted("class_block")
    after = carried_head(before, PRIOR, THERE, mapped)
    deviation = before.mean - TEXT
    centred = deviation - deviation.mean(0)
    for place in range(CLASSES):
        noise = RATIO**2 * centred[place] @ mapped.residual @ centred[place]
        decay = (1 + noise / (RATIO**2 * VARIANCE)) ** -0.5
        through = decay * RATIO * mapped.matrix
        # for a map that keeps lengths all noise together fills up to the prior
        own_noise = RATIO**2 * VARIANCE * torch.eye(SECOND).double() - VARIANCE * through @ through.mT
        assert_near(after.decay[place], decay)
        assert_near(after.belief.mean[place], THERE.mean[place] + through @ deviation[place])
        wanted = through @ before.covariance[place] @ through.mT + own_noise
        assert_near(after.belief.covariance[place], wanted)


def test_the_more_residual_the_wider_and_never_wider_than_the_prior() -> None:
    before = fitted("class_block")
    widths = [torch.diag_embed(0 * THERE.variance)]
    for much in (0.0, 0.1, 0.4, 1.0, 1e6):
        after = carried_head(before, PRIOR, THERE, with_residual(much))
        widths.append(class_blocks(after.belief))
    widths.append(torch.diag_embed(THERE.variance))
    for narrow, wide in pairwise(widths):
        assert float(torch.linalg.eigvalsh(wide - narrow).min()) > -1e-12


def test_directions_that_the_first_encoder_does_not_know_keep_their_prior() -> None:
    after = carried_head(fitted("class_block"), PRIOR, THERE, EXACT).belief
    unknown = torch.linalg.svd(TURN, full_matrices=True)[0][:, FIRST:]
    assert_near(after.covariance @ unknown, RATIO**2 * VARIANCE * unknown.expand(CLASSES, -1, -1))
    assert_near(after.mean @ unknown, THERE.mean @ unknown)


def test_of_what_the_first_encoder_does_not_tell_the_second_prior_speaks() -> None:
    """Of least squares between spaces that share a part, for rows that show it exactly."""
    both = unit_rows(80, 9, seed=9)
    first, second = both[:, :FIRST], both[:, 1:]
    mapped = fit_map(first, second)
    before = fitted("class_block")
    after = carried_head(before, PRIOR, THERE, mapped)
    untold = second - first @ mapped.back
    assert_near(second @ mapped.untold.mT, second - second @ mapped.matrix @ mapped.back)
    step = after.decay[0] ** 2
    inner = step * before.covariance[0] + (1 - step) * VARIANCE * torch.eye(FIRST).double()
    seen = second @ mapped.matrix
    wanted = RATIO**2 * ((seen @ inner) * seen).sum(-1)
    wanted = wanted + RATIO**2 * VARIANCE * (second @ mapped.untold.mT).square().sum(-1)
    assert_near(after.belief.logit_moments(second)[1][:, 0], wanted)
    assert float(untold.norm()) < float(second.norm())


def test_blocks_of_the_variational_low_rank_family() -> None:
    factor: Tensor = random(CLASSES, FIRST, 2)
    weights = LowRank(TEXT, torch.ones_like(TEXT), factor)
    flat = factor.reshape(-1, 2)
    dense = torch.eye(CLASSES * FIRST).double() + flat @ flat.mT
    for place, block in enumerate(class_blocks(weights)):
        own = slice(place * FIRST, (place + 1) * FIRST)
        assert_near(block, dense[own, own])


@pytest.mark.parametrize("weights", [Point(TEXT), Draws(TEXT.expand(4, -1, -1))])
def test_what_has_no_covariance_is_refused(weights: Point | Draws) -> None:
    with pytest.raises(UserError, match="no covariance to carry"):
        carried_head(weights, PRIOR, THERE, EXACT)
