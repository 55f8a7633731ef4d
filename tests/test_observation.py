from __future__ import annotations

import pytest
import torch
from naive_twins import softmax_curvature
from numpy.polynomial.hermite_e import hermegauss
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.observation import SOFTMAX, Bernoulli, Gaussian, Observation, fixed_noise

PROBLEM = small_problem(rows=5)
LOGITS, CLASSES = PROBLEM.logits, PROBLEM.labels
SWITCHES = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
VALUES = torch.linspace(-1, 2, 15, dtype=torch.float64).reshape(5, 3)
GAUSSIAN = Gaussian(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
OBSERVED = [(SOFTMAX, CLASSES), (Bernoulli(), SWITCHES), (GAUSSIAN, VALUES)]
every_observation = pytest.mark.parametrize(
    "observation, labels", OBSERVED, ids=[observed[0].name for observed in OBSERVED]
)


@every_observation
def test_residual_and_curvature_are_the_derivatives_of_the_log_likelihood(
    observation: Observation, labels: Tensor
) -> None:
    """In all three the Hessian does not depend on the label, so it is the Fisher information too."""

    def total(logits: Tensor) -> Tensor:
        return observation.log_likelihood(logits, labels).sum()

    residual = observation.target(labels, LOGITS) - observation.response(LOGITS)
    assert_near(residual, torch.func.grad(total)(LOGITS))
    hessian = torch.func.hessian(total)(LOGITS)
    rows = torch.stack([hessian[row, :, row] for row in range(5)])
    curvature = observation.curvature(LOGITS)
    assert_near(curvature.dense(), -rows)
    assert_near(curvature.own, -rows.diagonal(dim1=1, dim2=2))
    assert_near(curvature.times(VALUES), torch.einsum("bij,bj->bi", -rows, VALUES))


@every_observation
def test_the_inverse_square_is_that_of_the_pseudo_inverse(observation: Observation, labels: Tensor) -> None:
    curvature = observation.curvature(LOGITS)
    residual = observation.target(labels, LOGITS) - observation.response(LOGITS)
    inverse = torch.linalg.pinv(curvature.dense(), hermitian=True)
    wanted = torch.einsum("bi,bij,bj->", residual, inverse, residual)
    assert_near(curvature.inverse_square(residual), wanted, 1e-8)
    assert curvature.degrees_of_freedom == int(torch.linalg.matrix_rank(curvature.dense()).sum())


def test_the_log_densities_are_those_of_torch() -> None:
    chance, pull = torch.distributions.Bernoulli(logits=LOGITS), GAUSSIAN.variance.sqrt()
    assert_near(Bernoulli().log_likelihood(LOGITS, SWITCHES), chance.log_prob(SWITCHES.double()).sum(-1))
    normal = torch.distributions.Normal(LOGITS, pull)
    assert_near(GAUSSIAN.log_likelihood(LOGITS, VALUES), normal.log_prob(VALUES).sum(-1))
    categorical = torch.distributions.Categorical(logits=LOGITS)
    assert_near(SOFTMAX.log_likelihood(LOGITS, CLASSES), categorical.log_prob(CLASSES))


def test_softmax_curvature_rows_sum_to_zero() -> None:
    curvature = SOFTMAX.curvature(LOGITS).dense()
    assert_near(curvature, softmax_curvature(LOGITS.softmax(-1)))
    assert_near(curvature.sum(-1), torch.zeros(5, 3).double())


def test_log_likelihood_is_finite_far_out() -> None:
    logits = torch.tensor([[1000.0, 0.0]], dtype=torch.float64)
    assert float(SOFTMAX.log_likelihood(logits, torch.tensor([1]))) == -1000


def test_fixed_noise_is_the_same_at_every_call_and_antithetic() -> None:
    noise = fixed_noise(8, LOGITS)
    assert torch.equal(noise, fixed_noise(8, LOGITS))
    assert noise.shape == (8, 5, 3)
    assert torch.equal(noise[4:], -noise[:4])


@every_observation
def test_expectations_without_spread_are_the_values_themselves(
    observation: Observation, labels: Tensor
) -> None:
    samples = LOGITS.expand(16, 5, 3)
    mean, own = observation.expected(samples)
    assert_near(mean, observation.response(LOGITS))
    assert_near(own, observation.curvature(LOGITS).own)
    mean, curvature = observation.expected_joint(samples)
    assert_near(mean, observation.response(LOGITS))
    assert_near(curvature, observation.curvature(LOGITS).dense())
    score = observation.predictive_score(samples, labels, LOGITS, lambda: torch.zeros(5, 3, 3).double())
    assert_near(score, observation.log_likelihood(LOGITS, labels))


@every_observation
def test_the_predictive_score_is_the_integral(observation: Observation, labels: Tensor) -> None:
    """Monte-Carlo where there is no closed form; the Gaussian's is held to the same draws of it."""
    root = torch.tril(torch.full((3, 3), 0.4, dtype=torch.float64)).expand(5, 3, 3)
    samples = LOGITS + torch.einsum("bij,sbj->sbi", root, fixed_noise(40_000, LOGITS))
    wanted = observation.log_likelihood(samples, labels).exp().mean(0).log()
    score = observation.predictive_score(samples, labels, LOGITS, lambda: root @ root.mT)
    assert_near(score, wanted, 0.02)


def test_joint_expectations_with_a_diagonal_root_are_the_independent_ones() -> None:
    samples = LOGITS + fixed_noise(64, LOGITS) * LOGITS.abs()
    mean, own = SOFTMAX.expected(samples)
    joint, curvature = SOFTMAX.expected_joint(samples)
    assert_near(joint, mean)
    assert_near(curvature.diagonal(dim1=1, dim2=2), own)


def test_expected_probability_is_the_integral() -> None:
    """Two classes against Gauss-Hermite quadrature over their difference; 2·10⁴ antithetic draws."""
    nodes, weights = map(torch.tensor, hermegauss(80))
    mean, deviation = torch.tensor([[0.7, -0.4]]).double(), torch.tensor([[1.2, 0.9]]).double()
    spread = deviation.square().sum().sqrt()
    wanted = (weights * (1.1 + spread * nodes).sigmoid()).sum() / weights.sum()
    estimate, _ = SOFTMAX.expected(mean + fixed_noise(20_000, mean) * deviation)
    assert abs(float(estimate[0, 0] - wanted)) < 0.003


def test_class_probabilities_are_bayes_rule_over_the_one_hot_outcomes() -> None:
    """p(class k) ∝ p(the label says k | z), for one output of two classes and for one output per class."""
    for observation in (Bernoulli(), Gaussian(torch.tensor(0.3, dtype=torch.float64))):
        each = torch.eye(3, dtype=torch.float64)
        logs = torch.stack([observation.log_likelihood(LOGITS, row.expand(5, 3)) for row in each], dim=-1)
        assert_near(observation.class_logits(LOGITS).softmax(-1), logs.softmax(-1))
        single = LOGITS[:, :1]
        pair = [observation.log_likelihood(single, torch.full((5, 1), value)) for value in (0.0, 1.0)]
        assert_near(observation.class_logits(single).softmax(-1), torch.stack(pair, dim=-1).softmax(-1))


@every_observation
def test_class_variance_is_that_of_the_affine_class_logits(observation: Observation, labels: Tensor) -> None:
    step = observation.class_logits(LOGITS + 1) - observation.class_logits(LOGITS)
    assert_near(observation.class_variance(torch.ones_like(LOGITS)), step.square())
