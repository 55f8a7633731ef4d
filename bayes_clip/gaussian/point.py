"""Beliefs that are no Gaussian over all weights: a point, draws, and a mean with a low-rank covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DRAWS_PER_CHUNK = 32


@dataclass(frozen=True)
class Point:
    """All probability on one set of weights."""

    mean: Tensor  # (C, D)

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, C), and zero variance."""
        mean = design @ self.mean.mT
        return mean, torch.zeros_like(mean)

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """The same logits (S, N, C) for every draw."""
        return (design @ self.mean.mT).expand(noise.shape)


@dataclass(frozen=True)
class Draws:
    """Equally weighted draws of the weights, as a Markov chain leaves them."""

    samples: Tensor  # (S, C, D)

    @property
    def mean(self) -> Tensor:
        """Mean weights (C, D)."""
        return self.samples.mean(0)

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Sample mean and variance (N, C) of the logits."""
        total, squares = torch.zeros(2, len(design), self.samples.shape[1]).to(design)
        centre = design @ self.mean.mT
        for part in self.samples.split(DRAWS_PER_CHUNK):
            deviation = design @ part.mT - centre
            total += deviation.sum(0)
            squares += deviation.square().sum(0)
        count = len(self.samples)
        return centre + total / count, (squares / count - (total / count).square()).clamp_min(0)

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Logits (S, N, C) of S of the draws, evenly spaced along the chain; `noise` gives only the shape."""
        picked = torch.linspace(0, len(self.samples) - 1, len(noise)).round().long()
        return design @ self.samples[picked.to(self.samples.device)].mT


@dataclass(frozen=True)
class LowRank:
    """Covariance diag(v) + F Fᵀ over all weights, as the low-rank variational guide gives it."""

    mean: Tensor  # (C, D)
    variance: Tensor  # (C, D)
    factor: Tensor  # (C, D, k)

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits."""
        shared = torch.einsum("nd,cdk->nck", design, self.factor)
        return design @ self.mean.mT, design.square() @ self.variance.mT + shared.square().sum(-1)

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Joint draws (S, N, C): the factor's part is shared by the classes of a row."""
        shared = torch.einsum("nd,cdk->nck", design, self.factor)
        generator = torch.Generator().manual_seed(1)
        common = torch.randn(*noise.shape[:2], shared.shape[-1], generator=generator).to(design)
        own = (design.square() @ self.variance.mT).sqrt() * noise
        return design @ self.mean.mT + own + torch.einsum("nck,snk->snc", shared, common)
