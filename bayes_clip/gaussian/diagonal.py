"""The diagonal belief: every weight on its own. O(C D) memory and O(C D b) time per batch of b rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import BlockGram


@dataclass(frozen=True)
class Diagonal:
    """W_cd ~ N(m_cd, v_cd), all independent.

    The update is the exact one of the class-block belief followed by keeping the marginal variances
    (the fully decoupled filter); it forgets all correlation between weights and is over-confident in
    directions that the data leave open.
    """

    mean: Tensor  # (C, D)
    variance: Tensor  # (C, D)

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, both (C, D)."""
        return cls(mean, variance)

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch (b, D), their Gram blocks and P Φᵀ (C, D, b)."""
        cross = self.variance[..., None] * design.mT
        return Projection(design @ self.mean.mT, BlockGram(design @ cross), cross, design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and downdate blocks B (C, b, b), projected to its variances."""
        cross = projection.cross
        mean = self.mean + (cross @ dual.mT[..., None])[..., 0]
        removed = (cross @ downdate).mul_(cross).sum(-1)
        # in exact arithmetic nothing is removed that is not there
        return replace(self, mean=mean, variance=(self.variance - removed).clamp_min(0))

    def diffuse(self, prior_mean: Tensor, decay: float, process_noise: Tensor) -> Self:
        """One time step of the state space; `process_noise` (C, D)."""
        mean = prior_mean + decay * (self.mean - prior_mean)
        return replace(self, mean=mean, variance=decay**2 * self.variance + process_noise)

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of `design` (N, D)."""
        return design @ self.mean.mT, design.square() @ self.variance.mT

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, N, C) of each row's logits: independent over classes, hence exact from the moments."""
        mean, variance = self.logit_moments(design)
        return torch.addcmul(mean, variance.sqrt(), noise)
