from __future__ import annotations

import pytest
import torch
from naive_twins import jacobian
from small_problems import assert_near, small_problem

from bayes_clip.gaussian import FAMILIES, design
from bayes_clip.gaussian.full import Full
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.observation import Bernoulli

PROBLEM = small_problem()
ROWS = jacobian(PROBLEM.design, 3)
WEIGHTS = torch.arange(15.0, dtype=torch.float64).reshape(3, 5)


def test_a_shared_design_is_a_jacobian_of_blocks() -> None:
    assert_near(design.times(PROBLEM.design, WEIGHTS), design.times(ROWS, WEIGHTS.reshape(-1)))
    dual = PROBLEM.logits.cos()
    assert_near(design.pull_back(PROBLEM.design, dual).reshape(-1), design.pull_back(ROWS, dual))
    adjoint = (design.times(PROBLEM.design, WEIGHTS) * dual).sum()
    assert_near(adjoint, (WEIGHTS * design.pull_back(PROBLEM.design, dual)).sum())
    columns = torch.randn(12, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_near(design.row_times(PROBLEM.design, columns), design.row_times(ROWS, columns.flatten(2)))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_full_learns_the_same_from_a_jacobian(rule: str) -> None:
    results = []
    for mean, variance, rows in (
        (PROBLEM.mean, PROBLEM.variance, PROBLEM.design),
        (PROBLEM.mean.reshape(-1), PROBLEM.variance.reshape(-1), ROWS),
    ):
        state = kalman.init(mean, variance, "full")
        belief = kalman.update(state, Batch(rows, PROBLEM.labels), RULES[rule])[0].belief
        assert isinstance(belief, Full)
        results.append((belief.mean.reshape(-1), belief.covariance, *belief.logit_moments(rows)))
    for headed, flat in zip(*results, strict=True):
        assert_near(headed, flat)


def test_diagonal_keeps_the_marginal_variances_of_full_from_a_jacobian() -> None:
    """For weights that share logits, so that no block structure hides a mistake."""
    rows = torch.randn(12, 3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean = torch.linspace(-1, 1, 7, dtype=torch.float64)
    beliefs = {
        family: kalman.update(
            kalman.init(mean, mean.exp(), family), Batch(rows, PROBLEM.labels), RULES["iterated"]
        )[0].belief
        for family in ("full", "diagonal")
    }
    assert_near(beliefs["diagonal"].mean, beliefs["full"].mean)
    assert_near(beliefs["diagonal"].variance, beliefs["full"].covariance.diagonal())
    noise = torch.randn(40_000, 12, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for belief in beliefs.values():
        mean_logits, variance = belief.logit_moments(rows)
        draws = belief.predicted_logits(rows).draw(noise)
        assert_near(draws.mean(0), mean_logits, 0.05)
        assert_near(draws.var(0), variance, 0.05)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"kronecker"}))  # it refuses one
def test_a_decay_of_its_own_for_every_weight(family: str) -> None:
    belief = kalman.update(
        kalman.init(PROBLEM.mean, PROBLEM.variance, family),
        Batch(PROBLEM.design, PROBLEM.labels),
        RULES["iterated"],
    )[0].belief
    noise = 0.1 * PROBLEM.variance
    same = belief.diffuse(PROBLEM.mean, torch.full((3, 5), 0.9, dtype=torch.float64), noise)
    for name, value in vars(belief.diffuse(PROBLEM.mean, 0.9, noise)).items():
        assert_near(getattr(same, name), value)


def test_independent_outputs_are_learned_one_by_one() -> None:
    """Three Bernoulli outputs under class blocks are three filters of one output each."""
    switches = (PROBLEM.logits.sin() > 0).long()
    state = kalman.init(PROBLEM.mean, PROBLEM.variance, "class_block")
    joint, info = kalman.update(
        state, Batch(PROBLEM.design, switches), RULES["iterated"], observation=Bernoulli()
    )
    score = 0.0
    for output in range(3):
        only = slice(output, output + 1)
        alone = kalman.init(PROBLEM.mean[only], PROBLEM.variance[only], "class_block")
        batch = Batch(PROBLEM.design, switches[:, output])
        alone, own = kalman.update(alone, batch, RULES["iterated"], observation=Bernoulli())
        assert_near(alone.belief.mean, joint.belief.mean[only])
        assert_near(alone.belief.covariance, joint.belief.covariance[only])
        score += float(own.change.log_evidence)
    assert_near(info.change.log_evidence, torch.tensor(score, dtype=torch.float64))
