"""The Gram of rows that know nothing of each other, with independent classes: everything in closed form.

It serves the scores of labels that were learned one after another: each row was predicted on its own, with
the variances it had just before its label. O(b C) for everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature, SoftmaxCurvature


@dataclass(frozen=True)
class RowGram:
    """Variances (b, C) of b C independent logits; the same as `BlockGram` with diagonal blocks."""

    variance: Tensor
    known: torch.dtype = torch.float64  # precision in which the belief knows the variances

    def times(self, dual: Tensor) -> Tensor:
        """G a for a dual (b, C)."""
        return self.variance * dual

    def newton(self, curvature: Curvature, excess: Tensor, residual: Tensor) -> Tensor:
        """Dual of the Newton step, (b, C); `excess` z − z₀ at the expansion point and residual r, (b, C)."""
        target = curvature.times(excess) + residual
        own = self._site_downdate(curvature)
        shift = own * self.times(target)
        if not isinstance(curvature, SoftmaxCurvature):
            return target - shift
        return target - shift + own * (shift.sum(-1, keepdim=True) / own.sum(-1, keepdim=True))

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        inner = torch.log1p(self._weight(curvature) * self.variance).sum()
        if not isinstance(curvature, SoftmaxCurvature):
            return inner
        return inner + self._site_downdate(curvature).sum(-1).log().sum()

    def samples(self, logits: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, b, C) of independent logits N(`logits`, `deviation`²) from standard normal `noise`."""
        return torch.addcmul(logits, noise, deviation)

    def deviation(self) -> Tensor:
        """Predicted standard deviation of each logit, (b, C)."""
        return self.variance.clamp_min(0).sqrt()

    def row_covariance(self) -> Tensor:
        """Covariance of each row's logits, (b, C, C): diagonal."""
        return torch.diag_embed(self.variance)

    def _weight(self, curvature: Curvature) -> Tensor:
        """D of a curvature D − p pᵀ, or of a diagonal one D."""
        return curvature.probabilities if isinstance(curvature, SoftmaxCurvature) else curvature.own

    def _site_downdate(self, curvature: Curvature) -> Tensor:
        """(D⁻¹ + G)⁻¹, (b, C)."""
        weight = self._weight(curvature)
        return weight / (1 + weight * self.variance)
