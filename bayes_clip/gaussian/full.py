"""The full belief: all weights jointly. O(P²) memory; for small problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import DenseGram
from bayes_clip.gaussian.logits import JointLogits
from bayes_clip.gaussian.quadratic import quadratic_forms
from bayes_clip.memory import WORKING_BYTES


@dataclass(frozen=True)
class Full:
    """vec(W) ~ N(m, P), classes outermost. Conditioning is exact for the site it is given."""

    mean: Tensor  # (C, D), or (P,) for a program that is no linear head
    covariance: Tensor  # (P, P), P = C D

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, of one shape."""
        return cls(mean, torch.diag(variance.reshape(-1)))

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch (b, D) or (b, C, P), their joint covariance and P Hᵀ (P, C b)."""
        columns = designs.classes_outermost(designs.times(design, self._columns()))
        cross = columns.mT
        seen = designs.times(design, cross.reshape(*self.mean.shape, -1))
        gram = DenseGram(designs.classes_outermost(seen), seen.shape[1])
        return Projection(designs.times(design, self.mean), gram, cross, design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and downdate B (C b, C b)."""
        cross = projection.cross
        mean = self.mean + (cross @ dual.T.reshape(-1)).reshape(self.mean.shape)
        return replace(self, mean=mean, covariance=self.covariance - (cross @ downdate) @ cross.mT)

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step of the state space; `process_noise` and a tensor `decay` are shaped like the mean."""
        mean = prior_mean + decay * (self.mean - prior_mean)
        if isinstance(decay, Tensor):
            flat = decay.expand(self.mean.shape).reshape(-1)
            covariance = flat[:, None] * self.covariance * flat
        else:
            covariance = decay**2 * self.covariance
        return replace(self, mean=mean, covariance=covariance + torch.diag(process_noise.reshape(-1)))

    @property
    def row_numbers(self) -> int:
        """One block row of the covariance times the row, and the root of the row's own covariance."""
        classes = self.mean.shape[0]
        return self.mean.numel() + 6 * classes**2

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of N design rows."""
        mean = designs.times(design, self.mean)
        if design.ndim == 2:
            variance = quadratic_forms(design, self._own_blocks(), budget)
        else:
            rows = design.reshape(-1, design.shape[-1])
            variance = quadratic_forms(rows, self.covariance[None], budget).reshape(mean.shape)
        return mean, variance.clamp_min_(0)

    def logit_covariance(self, design: Tensor) -> Tensor:
        """Joint covariance of each row's logits, (n, C, C)."""
        if design.ndim == 3:
            return designs.row_times(design, designs.times(design, self.covariance))
        classes, features = self.mean.shape
        result = design.new_empty(len(design), classes, classes)
        for index, block_row in enumerate(self.covariance.split(features)):
            seen = (design @ block_row).reshape(-1, classes, features)
            torch.sum(seen.mul_(design[:, None, :]), -1, out=result[:, index])
        return result

    def predicted_logits(self, design: Tensor) -> JointLogits:
        """Moments and draws of the logits of n rows, by the root of each row's covariance."""
        return JointLogits.of(designs.times(design, self.mean), self.logit_covariance(design))

    def _own_blocks(self) -> Tensor:
        """The covariance of each class's own weights, a view (C, D, D)."""
        shape = self.mean.shape
        return self.covariance.reshape(*shape, *shape).diagonal(dim1=0, dim2=2).permute(2, 0, 1)

    def _columns(self) -> Tensor:
        return self.covariance.reshape(*self.mean.shape, -1)
