"""Beliefs that are no Gaussian over all weights: a point, draws, and a mean with a low-rank covariance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.logits import ChainLogits, FactorLogits, JointLogits, SeparateLogits
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within

DRAWS_PER_CHUNK = 32


@dataclass(frozen=True)
class Point:
    """All probability on one set of weights."""

    mean: Tensor  # (C, D)

    @property
    def row_numbers(self) -> int:
        """Nothing."""
        return 0

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean (N, C), and zero variance."""
        mean = design @ self.mean.mT
        return mean, torch.zeros_like(mean)

    def predicted_logits(self, design: Tensor) -> SeparateLogits:
        """The same logits for every draw."""
        return SeparateLogits(*self.logit_moments(design))


@dataclass(frozen=True)
class Draws:
    """Equally weighted draws of the weights, as a Markov chain leaves them."""

    samples: Tensor  # (S, C, D) or (S, P)

    @property
    def mean(self) -> Tensor:
        """Mean weights."""
        return self.samples.mean(0)

    @property
    def row_numbers(self) -> int:
        """Logits under some of the draws, and their squares."""
        return 2 * min(DRAWS_PER_CHUNK, len(self.samples)) * self.samples.shape[1]

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Sample mean and variance (N, C) of the logits."""
        centre, at_once = self.mean, rows_within(budget, self.row_numbers * design.element_size())
        return by_rows(lambda rows: self._moments(rows, centre), design, at_once)

    def _moments(self, design: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        centre = design @ weights.mT
        parts = (design @ part.mT for part in self.samples.split(DRAWS_PER_CHUNK))
        return sample_moments(parts, centre, len(self.samples))

    def predicted_logits(self, design: Tensor) -> ChainLogits:
        """Moments and draws of the logits of n rows: the chain's own draws."""
        moments = self._moments(design, self.mean)
        return ChainLogits(*moments, len(self.samples), lambda index: design @ self.samples[index].mT)


@dataclass(frozen=True)
class LowRank:
    """Covariance diag(v) + F Fᵀ over all weights, as the low-rank variational guide gives it."""

    mean: Tensor  # (C, D) or (P,)
    variance: Tensor  # the same shape
    factor: Tensor  # (..., k)

    @property
    def row_numbers(self) -> int:
        """The row squared, and the factors seen by each class."""
        return self.mean.shape[-1] + 2 * self.mean.shape[0] * self.factor.shape[-1]

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits."""
        classes = self.mean.shape[0] if design.ndim == 2 else design.shape[1]
        numbers = design[:1].numel() + 2 * classes * self.factor.shape[-1]

        def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
            shared, own = designs.times(rows, self.factor), designs.times(rows.square(), self.variance)
            return designs.times(rows, self.mean), own + shared.square_().sum(-1)

        return by_rows(moments, design, rows_within(budget, numbers * design.element_size()))

    def predicted_logits(self, design: Tensor) -> FactorLogits | JointLogits:
        """Moments and draws of the logits of n rows: the factors are shared by the classes of a row."""
        mean, shared = designs.times(design, self.mean), designs.times(design, self.factor)
        if design.ndim == 3:  # weights that several classes share tie their own parts as well
            own = (design * self.variance) @ design.mT
            return JointLogits.of(mean, own + shared @ shared.mT)
        own = designs.times(design.square(), self.variance)
        return FactorLogits(mean, own + shared.square().sum(-1), own, shared)


def sample_moments(parts: Iterable[Tensor], centre: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (n, C) of `count` logits that come in `parts` (s, n, C), by running sums.

    Sums are of differences from `centre` (n, C), which is close to the mean, so that nothing cancels.
    """
    total, squares = torch.zeros_like(centre), torch.zeros_like(centre)
    for part in parts:
        deviation = part - centre
        total += deviation.sum(0)
        squares += deviation.square_().sum(0)
    return centre + total / count, (squares / count - (total / count).square()).clamp_min(0)
