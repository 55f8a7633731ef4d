"""The full belief: all weights of all classes jointly. O(C² D²) memory; for small problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import DenseGram
from bayes_clip.gaussian.matrices import root_of

ROWS_PER_CHUNK = 64


@dataclass(frozen=True)
class Full:
    """vec(W) ~ N(m, P), classes outermost. Conditioning is exact for the site it is given."""

    mean: Tensor  # (C, D)
    covariance: Tensor  # (C D, C D)

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, both (C, D)."""
        return cls(mean, torch.diag(variance.reshape(-1)))

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch (b, D), their joint covariance and P Φᵀ (C D, C b)."""
        cross = self._cross(design)
        gram = torch.einsum("cdk,bd->cbk", self._by_class(cross), design).reshape(cross.shape[1], -1)
        return Projection(design @ self.mean.mT, DenseGram(gram, len(self.mean)), cross, design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and downdate B (C b, C b)."""
        cross = projection.cross
        mean = self.mean + (cross @ dual.T.reshape(-1)).reshape(self.mean.shape)
        return replace(self, mean=mean, covariance=self.covariance - (cross @ downdate) @ cross.mT)

    def diffuse(self, prior_mean: Tensor, decay: float, process_noise: Tensor) -> Self:
        """One time step of the state space; `process_noise` (C, D)."""
        covariance = decay**2 * self.covariance + torch.diag(process_noise.reshape(-1))
        return replace(self, mean=prior_mean + decay * (self.mean - prior_mean), covariance=covariance)

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of `design` (N, D)."""
        blocks = self.covariance.reshape(*self.mean.shape, *self.mean.shape)
        own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        variance = torch.stack([(design @ block).mul_(design).sum(-1) for block in own], dim=-1)
        return design @ self.mean.mT, variance.clamp_min_(0)

    def logit_covariance(self, design: Tensor) -> Tensor:
        """Joint covariance of each row's logits, (N, C, C)."""
        cross = self._by_class(self._cross(design)).reshape(*self.mean.shape, len(self.mean), -1)
        return torch.einsum("cdkn,nd->nck", cross, design)

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Joint draws (S, N, C) of each row's logits; different rows are drawn independently."""
        draws = []
        for rows, part in zip(design.split(ROWS_PER_CHUNK), noise.split(ROWS_PER_CHUNK, dim=1), strict=True):
            root = root_of(self.logit_covariance(rows))
            draws.append(rows @ self.mean.mT + torch.einsum("nck,snk->snc", root, part))
        return torch.cat(draws, dim=1)

    def _cross(self, design: Tensor) -> Tensor:
        """P Φᵀ, (C D, C b), classes outermost in both."""
        classes, features = self.mean.shape
        by_class = self.covariance.reshape(classes * features, classes, features)
        return torch.einsum("pcd,bd->pcb", by_class, design).reshape(classes * features, -1)

    def _by_class(self, cross: Tensor) -> Tensor:
        return cross.reshape(*self.mean.shape, -1)
