"""Classes that come and go in beliefs of covariance form, against the joint Gaussian written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_problems import assert_near, small_problem

from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES, Full
from bayes_clip.gaussian.classes import (
    site_with_classes,
    site_without_class,
    with_classes,
    without_class,
)
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.rules import RULES

PROBLEM = small_problem(classes=4, features=3, rows=8)
NEW_MEAN, NEW_VARIANCE = torch.full((2, 3), 0.5).double(), torch.full((2, 3), 0.25).double()


def learned(family: str) -> Any:
    state = kalman.init(PROBLEM.mean, PROBLEM.variance, family)
    return kalman.update(state, Batch(PROBLEM.design, PROBLEM.labels), RULES["iterated"])[0].belief


def test_a_full_belief_gains_independent_weights_and_loses_a_block_of_its_covariance() -> None:
    before: Full = learned("full")
    wider: Full = with_classes(before, NEW_MEAN, NEW_VARIANCE)
    wanted = torch.zeros(18, 18).double()
    wanted[:12, :12] = before.covariance
    wanted[12:, 12:] = 0.25 * torch.eye(6).double()
    assert torch.equal(wider.covariance, wanted)
    kept = [0, 1, 2, 6, 7, 8, 9, 10, 11]  # all but the second class
    left: Full = without_class(before, 1)
    assert torch.equal(left.covariance, before.covariance[kept][:, kept])
    assert torch.equal(left.mean, before.mean[[0, 2, 3]])


@pytest.mark.parametrize("family", ["class_block", "diagonal", "full"])
def test_a_class_that_comes_and_goes_leaves_no_trace(family: str) -> None:
    before = learned(family)
    wider = with_classes(before, NEW_MEAN, NEW_VARIANCE)
    again = without_class(without_class(wider, 5), 4)
    for name, tensor in vars(before).items():
        assert torch.equal(getattr(again, name), tensor)
    mean, variance = wider.logit_moments(PROBLEM.design)
    assert_near(mean[:, 4:], PROBLEM.design @ NEW_MEAN.mT)
    assert_near(variance[:, 4], 0.25 * PROBLEM.design.square().sum(-1))


def test_families_that_cannot_are_refused() -> None:
    even = FAMILIES["kronecker"].from_prior(PROBLEM.mean, torch.ones_like(PROBLEM.mean))
    with pytest.raises(UserError, match="classes cannot come or go with this covariance"):
        with_classes(even, NEW_MEAN, NEW_VARIANCE)
    with pytest.raises(UserError, match="classes cannot come or go with this covariance"):
        without_class(even, 0)


@pytest.mark.parametrize("family", ["class_block", "full"])
def test_a_site_says_nothing_of_a_new_class_and_forgets_one_that_went(family: str) -> None:
    """Sites of b rows: (C, b, b) by class, or (C b, C b) with the classes outermost."""
    state = kalman.init(PROBLEM.mean, PROBLEM.variance, family)
    _, _, site = kalman.put_in(state, Batch(PROBLEM.design[:2], PROBLEM.labels[:2]), RULES["plain"])
    wider = site_with_classes(site.matrix, 2, 2)
    assert wider.shape == ((6, 2, 2) if family == "class_block" else (12, 12))
    assert float(wider.abs().sum()) == pytest.approx(float(site.matrix.abs().sum()), rel=1e-12)
    assert torch.equal(site_without_class(site_without_class(wider, 5, 2), 4, 2), site.matrix)
    left = site_without_class(site.matrix, 1, 2)
    if family == "class_block":
        assert torch.equal(left, site.matrix[[0, 2, 3]])
    else:
        kept = [0, 1, 4, 5, 6, 7]
        assert torch.equal(left, site.matrix[kept][:, kept])
