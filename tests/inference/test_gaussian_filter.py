"""With Gaussian observations the filter is exact whatever the rule: closed form, order, innovation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_twins import jacobian
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.inference import kalman, stream
from bayes_clip.inference.kalman import Batch, KalmanState, StepInfo
from bayes_clip.inference.rules import RULES
from bayes_clip.observation import Gaussian

PROBLEM = small_problem(classes=2, features=4, rows=9)
NOISE = Gaussian(torch.tensor([0.3, 0.8], dtype=torch.float64))
VALUES = torch.randn(9, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def closed_form() -> tuple[Tensor, Tensor, Tensor]:
    """Posterior mean and covariance of the flat weights, and the log probability of all values."""
    rows = jacobian(PROBLEM.design, 2).reshape(18, 8)
    prior = torch.diag(PROBLEM.variance.reshape(-1))
    weight = torch.diag((1 / NOISE.variance).repeat(9))
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + rows.mT @ weight @ rows)
    excess = VALUES.reshape(-1) - rows @ PROBLEM.mean.reshape(-1)
    mean = PROBLEM.mean.reshape(-1) + covariance @ rows.mT @ weight @ excess
    spread = rows @ prior @ rows.mT + torch.diag(NOISE.variance.repeat(9))
    normal = torch.distributions.MultivariateNormal(torch.zeros(18).double(), spread)
    return mean, covariance, normal.log_prob(excess)


def filtered(
    rule: str, family: str, pieces: list[list[int]], passes: int = 1
) -> tuple[KalmanState, list[StepInfo]]:
    state = kalman.init(PROBLEM.mean, PROBLEM.variance, family)
    data = [Batch(PROBLEM.design[rows], VALUES[rows]) for rows in pieces]
    return stream.run(state, data, RULES[rule], passes=passes, observation=NOISE)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("pieces", [[list(range(9))], [[0, 1, 2], [3, 4], [5, 6, 7, 8]]])
def test_the_filter_is_the_closed_form(rule: str, pieces: list[list[int]]) -> None:
    mean, covariance, evidence = closed_form()
    state, infos = filtered(rule, "full", pieces)
    assert_near(state.belief.mean.reshape(-1), mean)
    assert_near(state.belief.covariance, covariance)
    assert_near(torch.stack([info.change.log_evidence for info in infos]).sum(), evidence)
    blocks, _ = filtered(rule, "class_block", pieces)
    assert_near(blocks.belief.mean.reshape(-1), mean)
    assert_near(torch.block_diag(*blocks.belief.covariance), covariance)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_one_value_at_a_time_scores_the_log_evidence(rule: str) -> None:
    """With one row a batch the prequential score is exact, and its sum the log probability of all values."""
    _, infos = filtered(rule, "full", [[row] for row in range(9)])
    assert_near(torch.stack([info.prequential_score for info in infos]).sum(), closed_form()[2])


@given(st.permutations(range(9)), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_neither_order_nor_batches_matter(order: list[int], size: int) -> None:
    pieces = [list(order[start : start + size]) for start in range(0, 9, size)]
    state, _ = filtered("plain", "full", pieces)
    mean, covariance, _ = closed_form()
    assert_near(state.belief.mean.reshape(-1), mean)
    assert_near(state.belief.covariance, covariance)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_further_passes_and_relinearisations_count_no_datum_twice(rule: str) -> None:
    mean, covariance, _ = closed_form()
    state, _ = filtered(rule, "full", [[0, 1, 2, 3], [4, 5, 6, 7, 8]], passes=3)
    assert_near(state.belief.mean.reshape(-1), mean)
    assert_near(state.belief.covariance, covariance)


def test_the_innovation_is_normalised_by_its_covariance() -> None:
    """νᵀ S⁻¹ ν with S = H P Hᵀ + σ², dense; its mean over data drawn from the model is the dimension."""
    rows = jacobian(PROBLEM.design, 2).reshape(18, 8)
    spread = rows @ torch.diag(PROBLEM.variance.reshape(-1)) @ rows.mT + torch.diag(NOISE.variance.repeat(9))
    root = torch.linalg.cholesky(spread)
    state = kalman.init(PROBLEM.mean, PROBLEM.variance, "full")
    generator, seen = torch.Generator().manual_seed(0), []
    for _ in range(300):
        excess = root @ torch.randn(18, generator=generator, dtype=torch.float64)
        batch = Batch(PROBLEM.design, PROBLEM.logits + excess.reshape(9, 2))
        _, info = kalman.update(state, batch, RULES["plain"], observation=NOISE)
        assert_near(info.nis, excess @ torch.linalg.solve(spread, excess))
        seen.append(float(info.nis))
    assert info.degrees_of_freedom == 18
    error = (2 * 18 / 300) ** 0.5
    assert abs(sum(seen) / 300 - 18) < 3 * error


def test_the_innovation_of_labels_is_normalised_on_the_range_of_the_curvature() -> None:
    problem = small_problem()
    state = kalman.init(problem.mean, problem.variance, "full")
    _, info = kalman.update(state, Batch(problem.design, problem.labels), RULES["plain"])
    rows = jacobian(problem.design, 3).reshape(36, 15)
    probabilities = problem.logits.softmax(-1)
    curvature = torch.block_diag(*(torch.diag(p) - torch.outer(p, p) for p in probabilities))
    innovation = (torch.eye(3).double()[problem.labels] - probabilities).reshape(-1)
    gram = rows @ torch.diag(problem.variance.reshape(-1)) @ rows.mT
    spread = torch.linalg.pinv(curvature + curvature @ gram @ curvature, hermitian=True)
    assert_near(info.nis, innovation @ spread @ innovation, 1e-8)
    assert info.degrees_of_freedom == 24
