"""The Kronecker belief: prior precision plus output curvature ⊗ feature moments, in two eigenbases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.logits import TurnedLogits
from bayes_clip.gaussian.site_gram import SiteGram
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within

EVEN = 1e-4  # relative: what float32 arithmetic on one number for all weights may leave of unevenness
REFUSED = "use --covariance class_block or low_rank"


@dataclass(frozen=True)
class Kronecker:
    """vec(W) ~ N(m, Λ⁻¹), classes outermost, with Λ = diag(u)⁻¹ ⊗ diag(v)⁻¹ + A ⊗ B / n.

    A is the sum over n rows of their curvature in the logits, B that of x xᵀ: their product stands for
    Σ Rᵢ ⊗ xᵢ xᵢᵀ. Exact where all rows share their curvature, or all their x xᵀ; otherwise curvature and
    features are taken as unrelated (K-FAC; Martens & Grosse 2015, Ritter, Botev & Barber 2018). It is never
    wider than the prior; one batch may widen it again in some direction, where n grows and A does not.

    With u^½ A u^½ = U α Uᵀ and v^½ B v^½ = V β Vᵀ, the covariance is (E ⊗ F) diag(S) (E ⊗ F)ᵀ with E = u^½ U,
    F = v^½ V and S = 1 / (1 + α βᵀ / n): predictive variances are closed form in these axes and no (C D, C D)
    matrix is ever made. Sums and eigenvectors are found in float64. O(C² + D² + C D) memory; a batch costs
    O(C³ + D³ + b D (C + D) + C³ b²) and its (C b)² Gram matrix.
    """

    mean: Tensor  # (C, D)
    class_variance: Tensor  # (C,) u
    feature_variance: Tensor  # (D,) v
    curvature: Tensor  # (C, C) A, float64
    moment: Tensor  # (D, D) B, float64
    rows: Tensor  # () n, float64; forgetting makes it smaller than the count
    class_axes: Tensor  # (C, C) E
    feature_axes: Tensor  # (D, D) F
    spread: Tensor  # (C, D) S

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, both (C, D).

        Raises:
            UserError: variances that are no product of one number per class and one per feature, or weights
                that are not those of a linear head.
        """
        if mean.ndim != 2:
            raise UserError(f"--covariance kronecker: takes the weights (C, D) of a linear head; {REFUSED}")
        classes, features = mean.shape
        exact = mean.double()
        empty = exact.new_zeros(classes, classes), exact.new_zeros(features, features), exact.new_zeros(())
        return cls.from_moments(mean, variance, *empty)

    @classmethod
    def from_moments(
        cls, mean: Tensor, variance: Tensor, curvature: Tensor, moment: Tensor, rows: Tensor
    ) -> Self:
        """The belief at `mean` and prior `variance`, both (C, D), and sums A (C, C), B (D, D) of n `rows` ().

        Raises:
            UserError: variances that are no product of one number per class and one per feature.
        """
        exact = variance.double()
        by_class, by_feature = exact.mean(1), exact.mean(0) / exact.mean()
        if not torch.allclose(by_class[:, None] * by_feature, exact, rtol=EVEN, atol=0):
            raise UserError(
                "--covariance kronecker: the prior variances are no product of one number per class and one "
                f"per feature; {REFUSED}"
            )
        return cls._in_axes(mean, by_class, by_feature, curvature, moment, rows)

    @classmethod
    def _in_axes(
        cls,
        mean: Tensor,
        by_class: Tensor,
        by_feature: Tensor,
        curvature: Tensor,
        moment: Tensor,
        rows: Tensor,
    ) -> Self:
        """Find the two eigenbases; everything but the mean in float64."""
        alpha, class_axes = _axes(curvature, by_class)
        beta, feature_axes = _axes(moment, by_feature)
        spread = 1 / (1 + _scaled(alpha, beta, rows))
        axes = (tensor.to(mean) for tensor in (class_axes, feature_axes, spread))
        return cls(mean, by_class.to(mean), by_feature.to(mean), curvature, moment, rows, *axes)

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch (b, D), their joint covariance, and the design in the feature axes.

        Raises:
            UserError: the design is a Jacobian.
        """
        if design.ndim != 2:
            raise UserError(f"--covariance kronecker: takes a linear head, not a Jacobian; {REFUSED}")
        turned = design @ self.feature_axes
        exact, axes = turned.double(), self.class_axes.double()
        by_axis = (exact * self.spread.double()[:, None, :]) @ exact.mT
        pairs = (axes[:, None, :] * by_axis.flatten(1).mT) @ axes.mT  # (C, b b, C): no larger than the Gram
        size = len(axes) * len(design)
        gram = pairs.reshape(len(axes), *exact.shape[:1] * 2, -1).transpose(2, 3).reshape(size, size)
        return Projection(design @ self.mean.mT, SiteGram(gram, len(axes)), turned, design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and sites (b, C, C), whose sum and whose rows' x xᵀ join A and B."""
        design = projection.design.double()
        inner = self.spread * (self.class_axes.mT @ (dual.mT @ projection.cross))
        return self._in_axes(
            self.mean + self.class_axes @ inner @ self.feature_axes.mT,
            self.class_variance.double(),
            self.feature_variance.double(),
            self.curvature + downdate.double().sum(0),
            self.moment + design.mT @ design,
            self.rows + len(design),
        )

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step γ² P + q P₀; approximate where q > 0 and data have been seen.

        In the eigenbases the step is exact, but the precision it leaves is the prior's plus
        γ² t / ((γ² + q)(γ² + q + q t)), t = α βᵀ / n, which is a product of the two bases only for q = 0. The
        product with the same sums over each basis is taken: of all products the closest in (generalised)
        Kullback-Leibler divergence. The prior part is exact, so unseen directions are. A, B and n all shrink,
        which is how forgetting reaches the weight of old rows against new ones.

        Raises:
            UserError: decay or noise (against the prior variance) that differs between weights.
        """
        gamma = _one_number(torch.as_tensor(decay, dtype=torch.float64), "decay")
        by_class, by_feature = self.class_variance.double(), self.feature_variance.double()
        noise = _one_number(process_noise.double() / (by_class[:, None] * by_feature), "process noise")
        mean, widened = prior_mean + decay * (self.mean - prior_mean), gamma**2 + noise
        alpha, class_axes = _axes(self.curvature, by_class)
        beta, feature_axes = _axes(self.moment, by_feature)
        before = _scaled(alpha, beta, self.rows)
        after = gamma**2 * before / (widened * (widened + noise * before))
        if not after.any():
            return self._in_axes(mean, widened * by_class, by_feature, self.curvature, self.moment, self.rows)
        kept, whole = after.sum() / before.sum(), after.sum()
        return self._in_axes(
            mean,
            widened * by_class,
            by_feature,
            _from_axes(kept * alpha.sum() / whole * after.sum(1), class_axes / by_class[:, None]),
            _from_axes(kept * beta.sum() / whole * after.sum(0), feature_axes / by_feature[:, None]),
            kept * self.rows,
        )

    @property
    def row_numbers(self) -> int:
        """The row in the feature axes, and its variances along the class axes."""
        return self.mean.shape[1] + 2 * self.mean.shape[0]

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of `design` (N, D): 2 N (D² + 2 C D + C²) operations."""
        squares = self.class_axes.square().mT
        return by_rows(
            lambda rows: (rows @ self.mean.mT, self._axis_variance(rows) @ squares),
            design,
            rows_within(budget, self.row_numbers * design.element_size()),
        )

    @property
    def variance(self) -> Tensor:
        """Variances of the weights, (C, D)."""
        return self.class_axes.square() @ self.spread @ self.feature_axes.square().mT

    def weights_from(self, noise: Tensor) -> Tensor:
        """Draws (..., C, D) of the weights from standard normal `noise` of that shape."""
        return self.mean + self.class_axes @ (self.spread.sqrt() * noise) @ self.feature_axes.mT

    def log_density(self, weights: Tensor) -> Tensor:
        """log N(w; m, Λ⁻¹) for weights (..., C, D): axes are inverted by their transposes over u and v."""
        turned = (self.class_axes / self.class_variance[:, None]).mT @ (weights - self.mean)
        turned = turned @ (self.feature_axes / self.feature_variance[:, None])
        scales = self.spread * self.class_variance[:, None] * self.feature_variance
        return -((turned.square() / self.spread).sum((-2, -1)) + (2 * math.pi * scales).log().sum()) / 2

    def logit_covariance(self, design: Tensor) -> Tensor:
        """Joint covariance of each row's logits, (N, C, C)."""
        return (self.class_axes * self._axis_variance(design)[:, None, :]) @ self.class_axes.mT

    def predicted_logits(self, design: Tensor) -> TurnedLogits:
        """Moments and draws of the logits of n rows: independent along the class axes."""
        along = self._axis_variance(design)
        variance = along @ self.class_axes.square().mT
        return TurnedLogits(design @ self.mean.mT, variance, along.sqrt(), self.class_axes)

    def _axis_variance(self, design: Tensor) -> Tensor:
        """Variance (N, C) of each row along the class axes, where it is independent."""
        return (design @ self.feature_axes).square_() @ self.spread.mT


def _axes(moment: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,) of v^½ M v^½ and its eigenvectors times v^½, (n, n)."""
    root = variance.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * moment * root)
    # a sum of positive semi-definite terms: what is negative is rounding
    return values.clamp_min(0), root[:, None] * vectors


def _from_axes(values: Tensor, axes: Tensor) -> Tensor:
    return (axes * values) @ axes.mT


def _scaled(alpha: Tensor, beta: Tensor, rows: Tensor) -> Tensor:
    """α βᵀ / n (C, D); zero without rows."""
    return torch.where(rows > 0, torch.outer(alpha, beta) / rows.clamp_min(torch.finfo(rows.dtype).tiny), 0.0)


def _one_number(values: Tensor, name: str) -> Tensor:
    """The number that all of `values` are."""
    middle = values.mean()
    if not torch.allclose(values, middle, rtol=EVEN, atol=0):
        raise UserError(f"--covariance kronecker: takes one {name} for all weights; {REFUSED}")
    return middle
