"""Gram matrices of beliefs kept in precision form: what they hand to `condition` is the sites themselves.

A belief that adds to its precision needs each row's site W, not the downdate (I + W G)⁻¹ W of a covariance.
Everything else is as in `gram`: the dual, the posterior logits and the evidence follow from G and W.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature, SoftmaxCurvature
from bayes_clip.gaussian.gram import BlockGram, DenseGram
from bayes_clip.gaussian.matrices import log_diagonal, root_of, symmetric


@dataclass(frozen=True)
class SiteGram(DenseGram):
    """The whole covariance of the batch's logits, (C b, C b); its downdates are the sites (b, C, C).

    With W = S Sᵀ per row, (I + W G)⁻¹ = I − S (I + Sᵀ G S)⁻¹ Sᵀ G: one Cholesky factor of (C b)³/3 operations
    per step, positive-definite by construction.
    """

    def double(self) -> SiteGram:
        """The same in float64, symmetric to the last bit."""
        return replace(self, matrix=symmetric(self.matrix.double()))

    def newton(self, curvature: Curvature, excess: Tensor, residual: Tensor) -> Tensor:
        """Dual (b, C) of the Newton step; `excess` z − z₀ and residual r, both (b, C)."""
        root = curvature_root(curvature)
        return self._solved(root, *self._factor(root), curvature.times(excess) + residual)

    def downdate(self, curvature: Curvature) -> Tensor:
        """The sites R, (b, C, C)."""
        return curvature.dense()

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        return 2 * log_diagonal(self._factor(curvature_root(curvature))[0])

    def given_sites(self, precision: Tensor, linear: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and a root (b, C, C) of each row's posterior covariance, given sites (b, C, C)."""
        root = root_of(precision)
        factor, seen = self._factor(root)
        half = torch.linalg.solve_triangular(factor, seen, upper=False)
        by_row = half.reshape(len(half), self.classes, -1).permute(2, 0, 1)
        blocks = self._row_blocks(self.matrix) - by_row.mT @ by_row
        target = linear - self.site_times(precision, predicted)
        return self._solved(root, factor, seen, target), root_of(blocks)

    def site_downdate(self, precision: Tensor) -> Tensor:
        """The sites (b, C, C), as they are."""
        return precision

    def _factor(self, root: Tensor) -> tuple[Tensor, Tensor]:
        """Cholesky factor of I + Sᵀ G S, and Sᵀ G, for per-row roots S (b, C, C)."""
        seen = self._per_row(root, self.matrix)
        inner = self._per_row(root, seen.mT)
        inner.diagonal().add_(1)
        return torch.linalg.cholesky(inner), seen

    def _solved(self, root: Tensor, factor: Tensor, seen: Tensor, target: Tensor) -> Tensor:
        """(I + S Sᵀ G)⁻¹ t for t (b, C), from `_factor` of S."""
        inner = torch.cholesky_solve(seen @ self._flat(target)[:, None], factor)[:, 0]
        return target - torch.einsum("bck,bk->bc", root, self._rows(inner))

    def _per_row(self, root: Tensor, columns: Tensor) -> Tensor:
        """Sᵀ M for M (C b, m), S the block-diagonal matrix of each row's root."""
        by_row = columns.reshape(self.classes, -1, columns.shape[-1]).transpose(0, 1)
        return (root.mT @ by_row).transpose(0, 1).reshape(columns.shape)


@dataclass(frozen=True)
class DiagonalSiteGram(BlockGram):
    """One Gram block per class, (C, b, b); its downdates are the diagonals of the sites, (b, C).

    The dual still takes the whole coupling of the softmax: only what is kept of a site is its diagonal.
    """

    def downdate(self, curvature: Curvature) -> Tensor:
        """The diagonal of R, (b, C)."""
        return curvature.own

    def concluded(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) of sites w (b, C) with pull h − W z₀ (b, C), and the sites."""
        return super().concluded(precision, pull)[0], precision

    def site_downdate(self, precision: Tensor) -> Tensor:
        """The diagonal of the sites (b, C), as it is."""
        return precision


def curvature_root(curvature: Curvature) -> Tensor:
    """S with S Sᵀ = R, (b, C, C); for a softmax diag(√p) − p √pᵀ (√p has length 1: I − √p √pᵀ projects)."""
    if not isinstance(curvature, SoftmaxCurvature):
        return torch.diag_embed(curvature.own.sqrt())
    half = curvature.probabilities.sqrt()
    return torch.diag_embed(half) - curvature.probabilities[:, :, None] * half[:, None, :]


def information_diagonal(design: Tensor, sites: Tensor) -> Tensor:
    """diag(Hᵀ W H) in the shape of the weights, for sites (b, C, C) or their diagonals (b, C).

    A shared design (b, D) gives (C, D) from the diagonals alone; a Jacobian (b, C, P) gives (P,).
    """
    if design.ndim == 2:
        own = sites.diagonal(dim1=1, dim2=2) if sites.ndim == 3 else sites
        return own.mT @ design.square()
    weighted = sites @ design if sites.ndim == 3 else sites[:, :, None] * design
    return (weighted * design).sum((0, 1))
