"""The full belief: all weights jointly. O(P²) memory; for small problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import DenseGram
from bayes_clip.gaussian.matrices import root_of

ROWS_PER_CHUNK = 64


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

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of N design rows."""
        variance = [
            self.logit_covariance(rows).diagonal(dim1=1, dim2=2) for rows in design.split(ROWS_PER_CHUNK)
        ]
        return designs.times(design, self.mean), torch.cat(variance).clamp_min(0)

    def logit_covariance(self, design: Tensor) -> Tensor:
        """Joint covariance of each row's logits, (N, C, C)."""
        seen = designs.times(design, self._columns())
        return designs.row_times(design, seen.reshape(*seen.shape[:2], *self.mean.shape))

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Joint draws (S, N, C) of each row's logits; different rows are drawn independently."""
        draws = []
        for rows, part in zip(design.split(ROWS_PER_CHUNK), noise.split(ROWS_PER_CHUNK, dim=1), strict=True):
            root = root_of(self.logit_covariance(rows))
            draws.append(designs.times(rows, self.mean) + torch.einsum("nck,snk->snc", root, part))
        return torch.cat(draws, dim=1)

    def _columns(self) -> Tensor:
        return self.covariance.reshape(*self.mean.shape, -1)
