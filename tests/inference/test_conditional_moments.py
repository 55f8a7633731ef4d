from __future__ import annotations

import pytest
import torch
from naive_twins import diagonal_blocks, jacobian
from small_problems import assert_near, small_problem

from bayes_clip.gaussian import ClassBlock, Full
from bayes_clip.inference import kalman
from bayes_clip.inference.conditional_moments import MOST_DRAWS, linearised_sites
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.observation import SOFTMAX, Bernoulli, fixed_noise

PROBLEM = small_problem(rows=6)
RULE = RULES["moment_matched"]


def test_one_label_is_the_best_linear_guess_of_the_weights_from_it() -> None:
    """Dense twin on the same draws: Cov[w, y] = P Hᵀ A, gain through the pseudo-inverse of Var[y]."""
    one = PROBLEM.rows(torch.tensor([4]))
    state, _ = kalman.update(kalman.init(one.mean, one.variance, "full"), Batch(one.design, one.labels), RULE)
    rows = jacobian(one.design, 3)[0]  # (C, P)
    covariance = torch.diag(one.variance.reshape(-1))
    root = (rows @ covariance @ rows.mT).diagonal().sqrt()  # the prior's classes are independent
    p = (one.logits + root * fixed_noise(MOST_DRAWS, one.logits)).softmax(-1)[:, 0]
    slope = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]).mean(0)
    mean = p.mean(0)
    gain = covariance @ rows.mT @ slope @ torch.linalg.pinv(torch.diag(mean) - torch.outer(mean, mean))
    target = torch.eye(3, dtype=torch.float64)[one.labels[0]]
    assert isinstance(state.belief, Full)
    assert_near(state.belief.mean.reshape(-1), one.mean.reshape(-1) + gain @ (target - mean))
    wanted = covariance - gain @ slope @ rows @ covariance
    assert_near(state.belief.covariance, wanted)
    blocks, _ = kalman.update(
        kalman.init(one.mean, one.variance, "class_block"), Batch(one.design, one.labels), RULE
    )
    assert isinstance(blocks.belief, ClassBlock)
    assert_near(blocks.belief.mean, state.belief.mean)
    assert_near(blocks.belief.covariance, diagonal_blocks(wanted, 3))


def test_one_label_moves_the_mean_to_that_of_the_exact_posterior() -> None:
    """By importance weights over a million draws of the logits; a few thousand in the rule."""
    one = PROBLEM.rows(torch.tensor([1]))
    _, info = kalman.update(
        kalman.init(one.mean, one.variance, "class_block"), Batch(one.design, one.labels), RULE
    )
    generator = torch.Generator().manual_seed(1)
    deviation = (one.design.square() @ one.variance.mT).sqrt()
    noise = torch.randn(10**6, 3, generator=generator, dtype=torch.float64)
    logits = one.logits + deviation * noise
    weight = logits.softmax(-1)[:, one.labels]
    wanted = (weight * logits).sum(0) / weight.sum()
    assert float((info.change.logits[0] - wanted).abs().max()) < 0.03 * float(deviation.max())
    assert float((wanted - one.logits[0]).abs().max()) > 0.3


@pytest.mark.parametrize("family", ["class_block", "full"])
def test_what_a_label_explains_is_bounded(family: str) -> None:
    """Where logits may be anything (variance 10⁴) the draws are rough, and the variance stays positive."""
    wide = small_problem(rows=6, variance=1e4)
    state, info = kalman.update(
        kalman.init(wide.mean, wide.variance, family), Batch(wide.design, wide.labels), RULE
    )
    _, variance = state.belief.logit_moments(wide.design)
    assert bool((variance > 0).all()) and bool(torch.isfinite(info.change.logits).all())
    assert bool((info.change.curvature >= 0).all())


def test_outputs_observed_independently_are_linearised_one_by_one() -> None:
    """A row of three switches under one joint covariance is three rows of one switch each."""
    switches = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    one = PROBLEM.rows(torch.tensor([0]))
    gram = kalman.init(one.mean, one.variance, "class_block").belief.project(one.design).gram
    precision, linear = linearised_sites(Bernoulli(), gram, one.logits, switches)
    p = (one.logits + gram.deviation() * fixed_noise(MOST_DRAWS, one.logits)).sigmoid()
    mean, slope = p.mean(0), (p * (1 - p)).mean(0)
    variance = gram.deviation().square()
    noise = mean * (1 - mean) - slope**2 * variance  # what the linear guess of each output leaves over
    assert_near(precision, slope**2 / noise)
    assert_near(linear, slope * (switches - mean + slope * one.logits) / noise)


def test_offset_common_to_all_logits_changes_nothing() -> None:
    gram = kalman.init(PROBLEM.mean, PROBLEM.variance, "class_block").belief.project(PROBLEM.design).gram
    still, _ = linearised_sites(SOFTMAX, gram, PROBLEM.logits, PROBLEM.labels)
    moved, _ = linearised_sites(SOFTMAX, gram, PROBLEM.logits + 25.0, PROBLEM.labels)
    assert_near(moved, still)
