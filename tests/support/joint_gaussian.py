"""All time steps of a linear-Gaussian state space at once: one dense Gaussian, conditioned in one solve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class JointGaussian:
    """N(mean, covariance) over the weights of T steps, (T P,) and (T P, T P), step outermost."""

    mean: Tensor
    covariance: Tensor
    steps: int

    def step(self, index: int) -> tuple[Tensor, Tensor]:
        """Mean (P,) and covariance (P, P) of one step."""
        return self.mean.reshape(self.steps, -1)[index], self.between(index, index)

    def between(self, row: int, column: int) -> Tensor:
        """Covariance (P, P) of two steps."""
        blocks = self.covariance.reshape(self.steps, len(self.mean) // self.steps, self.steps, -1)
        return blocks[row, :, column]

    def log_density(self, weights: Tensor) -> Tensor:
        """log N(weights), weights (T, P)."""
        normal = torch.distributions.MultivariateNormal(self.mean, self.covariance)
        return normal.log_prob(weights.reshape(-1))


def joint_prior(mean: Tensor, variance: Tensor, decay: Tensor, noise: Tensor, steps: int) -> JointGaussian:
    """θ_0 ~ N(mean, diag variance), θ_k = mean + γ (θ_{k−1} − mean) + N(0, diag noise); all arguments (P,).

    Written as a linear map of θ_0 and the noises: θ_k − mean = Σ_j γ^(k−j) w_j.
    """
    size = len(mean)
    weights = torch.zeros(steps, size, steps, size, dtype=mean.dtype)
    for later in range(steps):
        for earlier in range(later + 1):
            weights[later, :, earlier] = torch.diag(decay ** (later - earlier))
    mixing = weights.reshape(steps * size, steps * size)
    sources = torch.cat([variance, noise.repeat(steps - 1)])
    return JointGaussian(mean.repeat(steps), mixing @ torch.diag(sources) @ mixing.mT, steps)


def given_observations(
    prior: JointGaussian, rows: list[Tensor], values: list[Tensor], variance: float
) -> JointGaussian:
    """The joint posterior after seeing values[k] = rows[k] @ θ_k with independent noise of this variance."""
    design = torch.block_diag(*rows)
    observed = torch.cat(values)
    innovation = design @ prior.covariance @ design.mT + variance * torch.eye(len(observed)).double()
    gain = torch.linalg.solve(innovation, design @ prior.covariance).mT
    mean = prior.mean + gain @ (observed - design @ prior.mean)
    return JointGaussian(mean, prior.covariance - gain @ design @ prior.covariance, prior.steps)
