"""Curvature of an observation in its logits: coupled between classes by the softmax, or separate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SoftmaxCurvature:
    """diag(p) − p pᵀ per row; its rank is one less than the number of classes."""

    probabilities: Tensor  # (b, C)

    @property
    def own(self) -> Tensor:
        """The diagonal p (1 − p), (b, C)."""
        return self.probabilities * (1 - self.probabilities)

    @property
    def degrees_of_freedom(self) -> int:
        """Rank over all rows."""
        return len(self.probabilities) * (self.probabilities.shape[1] - 1)

    def times(self, logits: Tensor) -> Tensor:
        """R z, (b, C)."""
        weighted = self.probabilities * logits
        return weighted - self.probabilities * weighted.sum(-1, keepdim=True)

    def inverse_square(self, residual: Tensor) -> Tensor:
        """Σ rᵀ R⁺ r over the rows, a scalar, for residuals (b, C) that sum to zero: Σ r²/p."""
        tiny = torch.finfo(residual.dtype).tiny
        return (residual.square() / self.probabilities.clamp_min(tiny)).sum()

    def dense(self) -> Tensor:
        """(b, C, C)."""
        p = self.probabilities
        return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


@dataclass(frozen=True)
class SeparateCurvature:
    """A diagonal curvature: the outputs are observed independently."""

    own: Tensor  # (b, K)

    @property
    def degrees_of_freedom(self) -> int:
        """Rank over all rows."""
        return self.own.numel()

    def times(self, logits: Tensor) -> Tensor:
        """R z, (b, K)."""
        return self.own * logits

    def inverse_square(self, residual: Tensor) -> Tensor:
        """Σ rᵀ R⁻¹ r over the rows, a scalar."""
        return (residual.square() / self.own.clamp_min(torch.finfo(residual.dtype).tiny)).sum()

    def dense(self) -> Tensor:
        """(b, K, K)."""
        return torch.diag_embed(self.own)


Curvature = SoftmaxCurvature | SeparateCurvature
