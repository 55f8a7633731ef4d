"""The diagonal belief: every weight on its own. O(P) memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import BlockGram, DenseGram
from bayes_clip.gaussian.logits import JointLogits, SeparateLogits
from bayes_clip.gaussian.quadratic import diagonal_moments
from bayes_clip.kernels.diagonal import condition, gram_blocks
from bayes_clip.memory import WORKING_BYTES


@dataclass(frozen=True)
class Diagonal:
    """Weights N(m_i, v_i), all independent.

    The update is the exact one (for a linear head: of the class-block belief) followed by keeping the
    marginal variances (the fully decoupled filter); it forgets all correlation between weights and is
    over-confident in directions that the data leave open. A batch of b rows takes O(C D b²) time for a head
    and O(P C² b²) otherwise.
    """

    mean: Tensor  # (C, D), or (P,) for a program that is no linear head
    variance: Tensor  # the same shape

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, of one shape."""
        return cls(mean, variance)

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch, their Gram, and P Hᵀ (P, C b); for a head the variances instead."""
        logits = designs.times(design, self.mean)
        if design.ndim == 2:
            return Projection(logits, BlockGram(gram_blocks(self.variance, design)), self.variance, design)
        rows = designs.classes_outermost(design)
        cross = self.variance[:, None] * rows.mT
        return Projection(logits, DenseGram(rows @ cross, design.shape[1]), cross, design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and downdate B of the Gram's shape, projected to its variances."""
        if projection.design.ndim == 2:
            mean, variance = condition(self.mean, self.variance, projection.design, dual, downdate)
            return replace(self, mean=mean, variance=variance)
        cross = projection.cross
        mean = self.mean + cross @ dual.T.reshape(-1)
        removed = (cross @ downdate).mul_(cross).sum(-1)
        # in exact arithmetic nothing is removed that is not there
        return replace(self, mean=mean, variance=(self.variance - removed).clamp_min(0))

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step of the state space; `process_noise` and a tensor `decay` are shaped like the mean."""
        mean = prior_mean + decay * (self.mean - prior_mean)
        return replace(self, mean=mean, variance=decay**2 * self.variance + process_noise)

    @property
    def row_numbers(self) -> int:
        """The row squared."""
        return self.mean.shape[-1]

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of N design rows."""
        return diagonal_moments(design, self.mean, self.variance, budget)

    def predicted_logits(self, design: Tensor) -> SeparateLogits | JointLogits:
        """Moments and draws of the logits of n rows; for a head they are independent over classes."""
        if design.ndim == 2:
            return SeparateLogits(*self.logit_moments(design))
        return JointLogits.of(designs.times(design, self.mean), (design * self.variance) @ design.mT)
