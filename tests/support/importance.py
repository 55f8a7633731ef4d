"""Exact posterior moments of small softmax problems by importance sampling: independent of every engine."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from naive_twins import mode_and_covariance
from small_problems import SmallProblem
from torch import Tensor

FREEDOM = 10.0


@dataclass(frozen=True)
class Weighted:
    """Draws from a heavy-tailed proposal with weights that make them draws from the posterior."""

    draws: Tensor  # (S, C, D)
    weights: Tensor  # (S,) sum to one
    log_likelihood: Tensor  # (S, N) nats, of each row

    @property
    def effective(self) -> float:
        """How many independent draws they are worth."""
        return float(1 / self.weights.square().sum())

    @property
    def mean(self) -> Tensor:
        """Posterior mean (C, D)."""
        return torch.einsum("s,scd->cd", self.weights, self.draws)

    @property
    def deviation(self) -> Tensor:
        """Posterior standard deviations (C, D)."""
        return torch.einsum("s,scd->cd", self.weights, (self.draws - self.mean).square()).sqrt()

    @property
    def leave_one_out(self) -> Tensor:
        """log p(y_i | the other labels), (N,)."""
        return -(self.weights.log()[:, None] - self.log_likelihood).logsumexp(0)

    def resampled(self, draws: int, seed: int = 0) -> Tensor:
        """Equally weighted draws (draws, C, D)."""
        generator = torch.Generator().manual_seed(seed)
        return self.draws[torch.multinomial(self.weights, draws, replacement=True, generator=generator)]


def weighted_draws(problem: SmallProblem, draws: int = 100_000, seed: int = 0) -> Weighted:
    """Draws from a Student t with 10 degrees of freedom around the mode, weighted by posterior / proposal."""
    mode, covariance = mode_and_covariance(problem)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(draws, mode.numel(), generator=generator, dtype=torch.float64)
    # a chi-square is a sum of squares of normals
    chi = torch.randn(draws, int(FREEDOM), generator=generator, dtype=torch.float64).square().sum(-1)
    scaled = normal * (FREEDOM / chi).sqrt()[:, None]
    weights = (mode.reshape(-1) + scaled @ torch.linalg.cholesky(covariance).mT).unflatten(-1, mode.shape)
    proposal = -(FREEDOM + mode.numel()) / 2 * torch.log1p(scaled.square().sum(-1) / FREEDOM)
    log_probabilities = torch.einsum("nd,scd->snc", problem.design, weights).log_softmax(-1)
    fit = log_probabilities[:, range(len(problem.labels)), problem.labels]
    prior = -((weights - problem.mean).square() / problem.variance).sum((1, 2)) / 2
    return Weighted(weights, (fit.sum(-1) + prior - proposal).softmax(0), fit)
