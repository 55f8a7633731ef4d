"""The class-block belief: one full covariance per class, classes independent. O(C D²) memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import BlockGram
from bayes_clip.gaussian.logits import SeparateLogits
from bayes_clip.gaussian.quadratic import quadratic_forms
from bayes_clip.kernels.visit import visit
from bayes_clip.memory import WORKING_BYTES


@dataclass(frozen=True)
class ClassBlock:
    """W_c ~ N(m_c, P_c), independent over classes.

    After a softmax observation the classes are coupled; keeping their diagonal blocks is an assumed-density
    projection, so a filter with this belief is approximate even where each update is exact.
    One batch of b rows costs 4 C D² b operations; `visited` reads and writes the covariance once for it.
    """

    mean: Tensor  # (C, D)
    covariance: Tensor  # (C, D, D)

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, both (C, D)."""
        return cls(mean, torch.diag_embed(variance))

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch (b, D), their Gram blocks and P Φᵀ (C, D, b)."""
        return self._projected(design, visit(self.covariance, None, None, design))

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and downdate blocks B (C, b, b)."""
        kept = replace(self, covariance=self.covariance.clone())
        return kept.visited(projection, dual, downdate, None)[0]

    def visited(
        self, projection: Projection, dual: Tensor, downdate: Tensor, design: Tensor | None
    ) -> tuple[Self, Projection | None]:
        """`condition`, and `project` of the next batch's design (b₂, D), in one visit of the covariance.

        Uses up this belief: its covariance is overwritten.
        """
        cross = projection.cross
        after = replace(self, mean=self.mean + self._step(cross, dual))
        left = torch.bmm(cross, downdate)
        if design is None:
            visit(self.covariance, left, cross, None)
            return after, None
        return after, after._projected(design, visit(self.covariance, left, cross, design))

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step of the state space; `process_noise` and a tensor `decay` are (C, D)."""
        mean = prior_mean + decay * (self.mean - prior_mean)
        if isinstance(decay, Tensor):
            covariance = decay[..., None] * self.covariance * decay[..., None, :]
        else:
            covariance = decay**2 * self.covariance
        return replace(self, mean=mean, covariance=covariance + torch.diag_embed(process_noise))

    @property
    def row_numbers(self) -> int:
        """Rows cut into panels; see `quadratic_forms`."""
        return 6 * self.mean.shape[1]

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of `design` (N, D): N C D² (k + 1)/k operations."""
        return design @ self.mean.mT, quadratic_forms(design, self.covariance, budget).clamp_min_(0)

    def predicted_logits(self, design: Tensor) -> SeparateLogits:
        """Moments and draws of the logits of n rows: independent over classes."""
        return SeparateLogits(*self.logit_moments(design))

    def _step(self, cross: Tensor, dual: Tensor) -> Tensor:
        """What the mean moves by, (C, D), for dual a (b, C)."""
        return torch.bmm(cross, dual.mT[..., None])[..., 0]

    def _projected(self, design: Tensor, cross: Tensor) -> Projection:
        gram = torch.bmm(design.expand(len(cross), -1, -1), cross)
        return Projection(design @ self.mean.mT, BlockGram(gram), cross, design)
