"""The variational diagonal belief: the precision keeps its diagonal, not the covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.design import classes_outermost, pull_back, times
from bayes_clip.gaussian.logits import JointLogits, SeparateLogits
from bayes_clip.gaussian.quadratic import diagonal_moments
from bayes_clip.gaussian.site_gram import DiagonalSiteGram, SiteGram, information_diagonal
from bayes_clip.memory import WORKING_BYTES


@dataclass(frozen=True)
class VariationalDiagonal:
    """w_i ~ N(m_i, 1/υ_i), all independent, updated by υ⁺ = υ + diag(Hᵀ R H).

    Among diagonal Gaussians this is the one closest to the exact posterior of the batch in KL(q ‖ p), where
    `Diagonal` (marginal variances) is closest in KL(p ‖ q): narrower, since what a direction owes to its
    neighbours is not given back. The mean takes the exact step of the batch from the diagonal prior; the
    precision only grows, so variances are positive at any number of rows. Exact where Hᵀ R H is diagonal.
    Source: the variational diagonal EKF of Chang, Murphy & Jones (2022, "On diagonal approximations to the
    extended Kalman filter"), of which Lambert, Bonnabel & Bach (2022, R-VGA) is the general form.

    O(P) memory; with a shared design (b, D) O(C D b + C b³) time, with a Jacobian O(P (C b)² + (C b)³).
    """

    mean: Tensor  # (C, D) or (P,)
    precision: Tensor  # the same shape

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, both (C, D) or (P,)."""
        return cls(mean, 1 / variance)

    @property
    def variance(self) -> Tensor:
        """Variances of the weights, in the shape of the mean."""
        return 1 / self.precision

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch, their Gram matrix, and the variances of the weights as `cross`."""
        variance = self.variance
        logits = times(design, self.mean)
        if design.ndim == 2:
            blocks = (design * variance[:, None, :]) @ design.mT
            return Projection(logits, DiagonalSiteGram(blocks), variance, design)
        rows = classes_outermost(design)
        return Projection(logits, SiteGram((rows * variance) @ rows.mT, design.shape[1]), variance, design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and sites (b, C), or (b, C, C) where the design is a Jacobian."""
        mean = self.mean + projection.cross * pull_back(projection.design, dual)
        information = information_diagonal(projection.design, downdate)
        return replace(self, mean=mean, precision=self.precision + information)

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step of the state space; `decay` and `process_noise` in the shape of the mean."""
        mean = prior_mean + decay * (self.mean - prior_mean)
        return replace(self, mean=mean, precision=1 / (decay**2 / self.precision + process_noise))

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
        return JointLogits.of(times(design, self.mean), (design * self.variance) @ design.mT)
