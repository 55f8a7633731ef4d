from __future__ import annotations

import torch
from naive_twins import softmax_curvature
from numpy.polynomial.hermite_e import hermegauss
from small_problems import assert_near, small_problem

from bayes_clip import observation

PROBLEM = small_problem(rows=5)
LOGITS, LABELS = PROBLEM.logits, PROBLEM.labels


def test_residual_and_curvature_are_the_derivatives_of_the_log_likelihood() -> None:
    def total(logits: torch.Tensor) -> torch.Tensor:
        return observation.log_likelihood(logits, LABELS).sum()

    assert_near(observation.residual(LOGITS, LABELS), torch.func.grad(total)(LOGITS))
    hessian = torch.func.hessian(total)(LOGITS)
    rows = torch.stack([hessian[row, :, row] for row in range(5)])
    curvature = observation.curvature(LOGITS.softmax(-1))
    assert_near(curvature, -rows)
    assert_near(curvature, softmax_curvature(LOGITS.softmax(-1)))
    assert_near(curvature.sum(-1), torch.zeros(5, 3).double())


def test_log_likelihood_is_finite_far_out() -> None:
    logits = torch.tensor([[1000.0, 0.0]], dtype=torch.float64)
    assert float(observation.log_likelihood(logits, torch.tensor([1]))) == -1000


def test_fixed_noise_is_the_same_at_every_call_and_antithetic() -> None:
    noise = observation.fixed_noise(8, LOGITS)
    assert torch.equal(noise, observation.fixed_noise(8, LOGITS))
    assert noise.shape == (8, 5, 3)
    assert torch.equal(noise[4:], -noise[:4])


def test_expectations_without_spread_are_the_values_themselves() -> None:
    noise, probabilities = observation.fixed_noise(16, LOGITS), LOGITS.softmax(-1)
    mean, own = observation.expected_softmax(LOGITS, torch.zeros_like(LOGITS), noise)
    assert_near(mean, probabilities)
    assert_near(own, probabilities * (1 - probabilities))
    mean, curvature = observation.expected_softmax_joint(LOGITS, torch.zeros(5, 3, 3).double(), noise)
    assert_near(mean, probabilities)
    assert_near(curvature, observation.curvature(probabilities))


def test_joint_expectations_with_a_diagonal_root_are_the_independent_ones() -> None:
    deviation = LOGITS.abs()
    noise = observation.fixed_noise(64, LOGITS)
    mean, own = observation.expected_softmax(LOGITS, deviation, noise)
    joint, curvature = observation.expected_softmax_joint(LOGITS, torch.diag_embed(deviation), noise)
    assert_near(joint, mean)
    assert_near(curvature.diagonal(dim1=1, dim2=2), own)


def test_expected_probability_is_the_integral() -> None:
    """Two classes against Gauss-Hermite quadrature over their difference; 2·10⁴ antithetic draws."""
    nodes, weights = map(torch.tensor, hermegauss(80))
    mean, deviation = torch.tensor([[0.7, -0.4]]).double(), torch.tensor([[1.2, 0.9]]).double()
    spread = deviation.square().sum().sqrt()
    wanted = (weights * (1.1 + spread * nodes).sigmoid()).sum() / weights.sum()
    estimate, _ = observation.expected_softmax(mean, deviation, observation.fixed_noise(20_000, mean))
    assert abs(float(estimate[0, 0] - wanted)) < 0.003
