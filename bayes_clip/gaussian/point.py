"""Beliefs that are no Gaussian over all weights: a point, draws, and a mean with a low-rank covariance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.diagonal import Diagonal

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

    samples: Tensor  # (S, C, D) or (S, P)

    @property
    def mean(self) -> Tensor:
        """Mean weights."""
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
        return design @ self.spread(len(noise)).mT

    def spread(self, count: int) -> Tensor:
        """`count` of the draws, evenly spaced along the chain."""
        picked = torch.linspace(0, len(self.samples) - 1, count).round().long()
        return self.samples[picked.to(self.samples.device)]


@dataclass(frozen=True)
class LowRank:
    """Covariance diag(v) + F Fᵀ over all weights, as the low-rank variational guide gives it."""

    mean: Tensor  # (C, D) or (P,)
    variance: Tensor  # the same shape
    factor: Tensor  # (..., k)

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits."""
        shared = designs.times(design, self.factor)
        own = designs.times(design.square(), self.variance)
        return designs.times(design, self.mean), own + shared.square().sum(-1)

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Joint draws (S, N, C): the factor's part is shared by the classes of a row."""
        shared = designs.times(design, self.factor)
        generator = torch.Generator().manual_seed(1)
        common = torch.randn(*noise.shape[:2], shared.shape[-1], generator=generator).to(design)
        own = Diagonal(self.mean, self.variance).sample_logits(design, noise)
        return own + torch.einsum("nck,snk->snc", shared, common)
