"""Pyro's GaussianHMM as an oracle for linear-Gaussian filters whose weights drift.

    θ_1 ~ N(m₀, P₀),   θ_k = m₀ + γ (θ_{k−1} − m₀) + w_k,  w_k ~ N(0, Q)
    y_k = H_k θ_k + e_k,  e_k ~ N(0, R)

γ = 1 is a random walk, γ < 1 an AR(1) around the prior mean. Pyro's own HMM moves before its first
observation; here the first transition forgets where it came from and lands on N(m₀, P₀), so that nothing
moves before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pyro.distributions import GaussianHMM, MultivariateNormal
from torch import Tensor


@dataclass(frozen=True)
class LinearGaussian:
    """The state space; all float64. P weights, T steps, K outputs; Q must be positive definite."""

    prior_mean: Tensor  # (P,)
    prior_covariance: Tensor  # (P, P)
    decay: Tensor | float  # γ: one number, or (P,)
    process_noise: Tensor  # Q (P, P)
    designs: Tensor  # H (T, K, P)
    noise: Tensor  # R (K, K)

    @property
    def transition(self) -> Tensor:
        """diag(γ), (P, P)."""
        return torch.diag(torch.as_tensor(self.decay, dtype=torch.float64).expand(len(self.prior_mean)))


@dataclass(frozen=True)
class Filtered:
    """What the observations up to the last one say."""

    mean: Tensor  # (P,) of the last step's weights
    covariance: Tensor  # (P, P)
    log_probability: Tensor  # () nats, of all observations; differences over prefixes are one-step scores


def gaussian_hmm(model: LinearGaussian, values: Tensor) -> Filtered:
    """Pyro's filter and log-probability for observations (T, K), T ≥ 2; for a prefix, cut values and designs.

    Pyro broadcasts over time, so that every step but the first has the same dynamics.
    """
    steps, outputs = values.shape
    still = model.transition
    matrices = torch.stack([torch.zeros_like(still), *[still] * (steps - 1)])
    drift = model.prior_mean - still @ model.prior_mean
    means = torch.stack([model.prior_mean, *[drift] * (steps - 1)])
    covariances = torch.stack([model.prior_covariance, *[model.process_noise] * (steps - 1)])
    hmm = GaussianHMM(
        MultivariateNormal(model.prior_mean, model.prior_covariance),  # forgotten at once
        matrices,
        MultivariateNormal(means, covariances),
        model.designs[:steps].mT,
        MultivariateNormal(torch.zeros(outputs, dtype=torch.float64), model.noise),
        duration=steps,
    )
    last = hmm.filter(values)
    return Filtered(last.mean, last.covariance_matrix, hmm.log_prob(values))
