"""The GaussianHMM oracle against a Kalman filter and a joint Gaussian written out in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian_hmm import LinearGaussian, gaussian_hmm
from naive_twins import jacobian
from scipy.stats import multivariate_normal
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.inference import kalman, stream
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.observation import Gaussian
from bayes_clip.state_space import StateSpace

STEPS, OUTPUTS, WEIGHTS = 5, 2, 3
DECAYS = {
    "random walk": 1.0,
    "AR(1)": 0.7,
    "a decay for each weight": torch.tensor([0.3, 0.9, 1.0], dtype=torch.float64),
}


def positive(size: int, generator: torch.Generator) -> Tensor:
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)


def example(decay: Tensor | float, seed: int = 0) -> tuple[LinearGaussian, Tensor]:
    """A state space with designs that change over time, and observations (T, K)."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    model = LinearGaussian(
        prior_mean=random(WEIGHTS),
        prior_covariance=positive(WEIGHTS, generator),
        decay=decay,
        process_noise=0.3 * positive(WEIGHTS, generator),
        designs=random(STEPS, OUTPUTS, WEIGHTS),
        noise=0.5 * positive(OUTPUTS, generator),
    )
    return model, random(STEPS, OUTPUTS)


def kalman_filter(model: LinearGaussian, values: Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """The textbook recursion with the gain, in numpy: mean, covariance and log-probability."""
    prior, transition = model.prior_mean.numpy(), model.transition.numpy()
    mean, covariance, total = prior, model.prior_covariance.numpy(), 0.0
    for step, (design, value) in enumerate(zip(model.designs.numpy(), values.numpy(), strict=True)):
        if step > 0:
            mean = prior + transition @ (mean - prior)
            covariance = transition @ covariance @ transition.T + model.process_noise.numpy()
        spread = design @ covariance @ design.T + model.noise.numpy()
        total += multivariate_normal.logpdf(value, design @ mean, spread)
        gain = covariance @ design.T @ np.linalg.inv(spread)
        mean = mean + gain @ (value - design @ mean)
        covariance = covariance - gain @ design @ covariance
    return mean, covariance, total


def joint_log_probability(model: LinearGaussian, values: Tensor) -> float:
    """log p of all observations from their joint Gaussian, without any recursion over data."""
    transition, prior = model.transition.numpy(), model.prior_mean.numpy()
    blocks = [[np.zeros((WEIGHTS, WEIGHTS))] * STEPS for _ in range(STEPS)]
    covariance = model.prior_covariance.numpy()
    for earlier in range(STEPS):
        if earlier > 0:
            covariance = transition @ covariance @ transition.T + model.process_noise.numpy()
        tie = covariance
        for later in range(earlier, STEPS):
            blocks[later][earlier], blocks[earlier][later] = tie, tie.T
            tie = transition @ tie
    seen = torch.block_diag(*model.designs).numpy()
    noise = np.kron(np.eye(STEPS), model.noise.numpy())
    mean = seen @ np.tile(prior, STEPS)
    return multivariate_normal.logpdf(
        values.numpy().reshape(-1), mean, seen @ np.block(blocks) @ seen.T + noise
    )


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
@pytest.mark.parametrize("steps", [2, 3, STEPS])
def test_filter_and_log_probability_are_those_of_the_recursion(decay: Tensor | float, steps: int) -> None:
    model, values = example(decay)
    cut = replace(model, designs=model.designs[:steps])
    found = gaussian_hmm(cut, values[:steps])
    mean, covariance, log_probability = kalman_filter(cut, values[:steps])
    assert_near(found.mean, torch.from_numpy(mean))
    assert_near(found.covariance, torch.from_numpy(covariance))
    assert_near(found.log_probability, torch.tensor(log_probability, dtype=torch.float64))


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_log_probability_is_that_of_the_joint_gaussian(decay: Tensor | float) -> None:
    model, values = example(decay, seed=1)
    wanted = torch.tensor(joint_log_probability(model, values), dtype=torch.float64)
    assert_near(gaussian_hmm(model, values).log_probability, wanted)


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_the_filter_is_the_hmm_around_a_prior_mean(decay: float) -> None:
    """The library's filter: moments, and the sum of its one-step scores and of its log evidences."""
    problem = small_problem(classes=2, features=3, rows=STEPS, seed=3)
    noise, flat = torch.tensor([0.3, 0.8], dtype=torch.float64), problem.variance.reshape(-1)
    values = problem.logits + torch.randn(STEPS, 2, generator=torch.Generator().manual_seed(4)).double()
    model = LinearGaussian(
        prior_mean=problem.mean.reshape(-1),
        prior_covariance=torch.diag(flat),
        decay=decay,
        process_noise=torch.diag(0.4 * flat),
        designs=jacobian(problem.design, 2),
        noise=torch.diag(noise),
    )
    state = kalman.init(problem.mean, problem.variance, "full")
    data = [Batch(problem.design[[row]], values[[row]]) for row in range(STEPS)]
    state, infos = stream.run(
        state, data, RULES["expected"], StateSpace(decay, 0.4), observation=Gaussian(noise)
    )
    wanted = gaussian_hmm(model, values)
    assert_near(state.belief.mean.reshape(-1), wanted.mean)
    assert_near(state.belief.covariance, wanted.covariance)
    assert_near(torch.stack([info.prequential_score for info in infos]).sum(), wanted.log_probability)
    assert_near(torch.stack([info.change.log_evidence for info in infos]).sum(), wanted.log_probability)
