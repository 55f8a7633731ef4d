"""Gram matrices of a batch: the covariance of its predicted logits, and the algebra of conditioning on it.

A batch of b rows with design Φ (b, D) sees the belief only through its predicted logits z₀ (b, C) and their
covariance G. Conditioning moves the weights by P Φᵀ a (a: the dual, (b, C)) and their covariance by
−P Φᵀ B Φ P (B: the downdate). Both follow from G alone:

    z = z₀ + G a,   a = (I + W G)⁻¹ (h − W z₀),   B = (I + W G)⁻¹ W        for sites exp(hᵀz − ½ zᵀWz)

`BlockGram` is for beliefs whose classes are independent: G is one (b, b) block per class. `DenseGram` is for
all others. Both offer the same methods; the update rules are written once, over either.
Softmax Newton steps on blocks follow Rasmussen & Williams (2006), algorithm 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature, SoftmaxCurvature
from bayes_clip.gaussian.matrices import log_diagonal, removed, root_of, symmetric
from bayes_clip.observation import Observation


@dataclass(frozen=True)
class BlockGram:
    """One Gram block per class, (C, b, b): the prior logits of different classes are independent."""

    blocks: Tensor

    def double(self) -> BlockGram:
        """The same in float64, symmetric to the last bit."""
        return BlockGram(symmetric(self.blocks.double()))

    def times(self, dual: Tensor) -> Tensor:
        """G a for a dual (b, C)."""
        return torch.einsum("cij,jc->ic", self.blocks, dual)

    def newton(self, curvature: Curvature, excess: Tensor, residual: Tensor) -> Tensor:
        """Dual of the Newton step, (b, C); `excess` z − z₀ at the expansion point and residual r, (b, C).

        The step solves a = (I + R G)⁻¹ (R (z − z₀) + r), with the coupling of a softmax in R.
        """
        target = curvature.times(excess) + residual
        if not isinstance(curvature, SoftmaxCurvature):
            return target - self._times(self.site_downdate(curvature.own), self.times(target))
        precision, factor = self._coupled(curvature.probabilities)
        shift = torch.einsum("cij,jc->ic", precision, self.times(target))
        shared = torch.cholesky_solve(shift.sum(-1, keepdim=True), factor)[:, 0]
        return target - shift + torch.einsum("cij,j->ic", precision, shared)

    def downdate(self, curvature: Curvature) -> Tensor:
        """Diagonal blocks (C, b, b) of (I + R G)⁻¹ R.

        Where the curvature couples the classes, keeping only these blocks is the assumed-density projection
        of the class-block belief.
        """
        if not isinstance(curvature, SoftmaxCurvature):
            return self.site_downdate(curvature.own)
        precision, factor = self._coupled(curvature.probabilities)
        rows = precision.shape[-1]
        stacked = precision.transpose(0, 1).reshape(rows, -1)
        half = torch.linalg.solve_triangular(factor, stacked, upper=False)
        half = half.reshape(rows, -1, rows).transpose(0, 1)
        return precision - half.mT @ half

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        weight = curvature.probabilities if isinstance(curvature, SoftmaxCurvature) else curvature.own
        inner = 2 * log_diagonal(torch.linalg.cholesky(self._inner(weight.T.sqrt())))
        if not isinstance(curvature, SoftmaxCurvature):
            return inner
        return inner + 2 * log_diagonal(self._coupled(curvature.probabilities)[1])

    def given_sites(self, precision: Tensor, linear: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and posterior standard deviations of the logits (b, C) given diagonal sites.

        Site precision w and linear term h, both (b, C); `predicted` logits z₀ (b, C).
        """
        root = precision.T.sqrt()
        factor = torch.linalg.cholesky(self._inner(root))
        half = torch.linalg.solve_triangular(factor, root[:, :, None] * self.blocks, upper=False)
        variance = self.blocks.diagonal(dim1=1, dim2=2) - half.square().sum(1)
        target = (linear - precision * predicted).T[..., None]
        inner = root[:, :, None] * (self.blocks @ target)
        dual = target - root[:, :, None] * torch.cholesky_solve(inner, factor)
        return dual[..., 0].T, variance.clamp_min(0).sqrt().T

    def site_downdate(self, precision: Tensor) -> Tensor:
        """(I + W G)⁻¹ W, (C, b, b), for diagonal site precision w (b, C)."""
        root = precision.T.sqrt()
        factor = torch.linalg.cholesky(self._inner(root))
        half = torch.linalg.solve_triangular(factor, torch.diag_embed(root), upper=False)
        return half.mT @ half

    def samples(self, logits: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, b, C) of independent logits N(`logits`, `deviation`²) from standard normal `noise`."""
        return logits + noise * deviation

    def expected(self, observation: Observation, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Average response and the average diagonal curvature, each (b, C), over samples (S, b, C)."""
        return observation.expected(samples)

    def start(self, curvature: Curvature) -> Tensor:
        """Site precision (b, C) to begin a fixed point with: the diagonal of the curvature."""
        return curvature.own

    def site_times(self, precision: Tensor, logits: Tensor) -> Tensor:
        """W z for diagonal sites, (b, C)."""
        return precision * logits

    def own_class(self, precision: Tensor) -> Tensor:
        """The diagonal of the sites, (b, C)."""
        return precision

    def deviation(self) -> Tensor:
        """Predicted standard deviation of each logit, (b, C)."""
        return self.blocks.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt().T

    def row_covariance(self) -> Tensor:
        """Covariance of each row's logits, (b, C, C): diagonal."""
        return torch.diag_embed(self.blocks.diagonal(dim1=1, dim2=2).T)

    def without(self, site: Tensor) -> Tensor:
        """Q = S (I − G S)⁻¹ (C, b, b): a downdate of −Q takes sites S (C, b, b) out of this belief."""
        return symmetric(removed(self.blocks, site))

    def site_of(self, downdate: Tensor) -> Tensor:
        """S = B (I − G B)⁻¹ (C, b, b): the sites that the downdate B of this (prior) Gram put in."""
        return symmetric(removed(self.blocks, downdate))

    def cavity_dual(self, removal: Tensor, site: Tensor, linear: Tensor, logits: Tensor) -> Tensor:
        """Dual (b, C) of the mean when sites are taken out: (I + Q G)(S z − h), `removal` Q."""
        excess = self._times(site, logits) - linear
        return excess + self._times(removal, self.times(excess))

    def site_linear(self, site: Tensor, logits: Tensor, dual: Tensor) -> Tensor:
        """h = S z + a (b, C): the linear term of sites whose posterior logits are z."""
        return self._times(site, logits) + dual

    def _times(self, blocks: Tensor, rows: Tensor) -> Tensor:
        """Blocks (C, b, b) times rows (b, C), class by class."""
        return (blocks @ rows.T[..., None])[..., 0].T

    def _inner(self, root: Tensor) -> Tensor:
        """I + W^½ G W^½ per class."""
        inner = root[:, :, None] * self.blocks * root[:, None, :]
        inner.diagonal(dim1=1, dim2=2).add_(1)
        return inner

    def _coupled(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """E_c = (D_c⁻¹ + G_c)⁻¹ per class, (C, b, b), and the Cholesky factor of Σ_c E_c, (b, b)."""
        precision = self.site_downdate(probabilities)
        return precision, torch.linalg.cholesky(precision.sum(0))


@dataclass(frozen=True)
class DenseGram:
    """The whole covariance of the batch's logits, (C b, C b), classes outermost."""

    matrix: Tensor
    classes: int

    def double(self) -> DenseGram:
        """The same in float64, symmetric to the last bit."""
        return DenseGram(symmetric(self.matrix.double()), self.classes)

    def times(self, dual: Tensor) -> Tensor:
        """G a for a dual (b, C)."""
        return self._rows(self.matrix @ self._flat(dual))

    def newton(self, curvature: Curvature, excess: Tensor, residual: Tensor) -> Tensor:
        """Dual (b, C) of the Newton step; `excess` z − z₀ and residual r, both (b, C)."""
        target = self._flat(curvature.times(excess) + residual)
        return self._rows(torch.linalg.solve(self._system(curvature.dense()), target))

    def downdate(self, curvature: Curvature) -> Tensor:
        """(I + R G)⁻¹ R, (C b, C b)."""
        return self.site_downdate(curvature.dense())

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        return torch.linalg.slogdet(self._system(curvature.dense())).logabsdet

    def given_sites(self, precision: Tensor, linear: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and a root (b, C, C) of each row's posterior covariance, given sites (b, C, C)."""
        target = self._flat(linear - self.site_times(precision, predicted))
        dual = self._rows(torch.linalg.solve(self._system(precision), target))
        posterior = self.matrix - self.matrix @ self.site_downdate(precision) @ self.matrix
        return dual, root_of(self._row_blocks(posterior))

    def site_downdate(self, precision: Tensor) -> Tensor:
        """(I + W G)⁻¹ W, (C b, C b), for site precision (b, C, C)."""
        return symmetric(torch.linalg.solve(self._system(precision), self._spread(precision)))

    def samples(self, logits: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, b, C) of each row's logits, `deviation` a root (b, C, C) of their covariance."""
        return logits + torch.einsum("bij,sbj->sbi", deviation, noise)

    def expected(self, observation: Observation, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Average response (b, C) and the average curvature (b, C, C) over samples (S, b, C)."""
        return observation.expected_joint(samples)

    def start(self, curvature: Curvature) -> Tensor:
        """Site precision (b, C, C) to begin a fixed point with: the curvature."""
        return curvature.dense()

    def site_times(self, precision: Tensor, logits: Tensor) -> Tensor:
        """W z, (b, C), for sites (b, C, C)."""
        return torch.einsum("bij,bj->bi", precision, logits)

    def own_class(self, precision: Tensor) -> Tensor:
        """The diagonal of the sites, (b, C), from sites (b, C, C)."""
        return precision.diagonal(dim1=1, dim2=2)

    def deviation(self) -> Tensor:
        """A root (b, C, C) of the predicted covariance of each row's logits."""
        return root_of(self.row_covariance())

    def row_covariance(self) -> Tensor:
        """Covariance of each row's logits, (b, C, C)."""
        return self._row_blocks(self.matrix)

    def without(self, site: Tensor) -> Tensor:
        """Q = S (I − G S)⁻¹ (C b, C b): a downdate of −Q takes sites S out of this belief."""
        return symmetric(removed(self.matrix, site))

    def site_of(self, downdate: Tensor) -> Tensor:
        """S = B (I − G B)⁻¹ (C b, C b): the sites that the downdate B of this (prior) Gram put in."""
        return symmetric(removed(self.matrix, downdate))

    def cavity_dual(self, removal: Tensor, site: Tensor, linear: Tensor, logits: Tensor) -> Tensor:
        """Dual (b, C) of the mean when sites are taken out: (I + Q G)(S z − h), `removal` Q."""
        excess = self._rows(site @ self._flat(logits)) - linear
        return excess + self._rows(removal @ self._flat(self.times(excess)))

    def site_linear(self, site: Tensor, logits: Tensor, dual: Tensor) -> Tensor:
        """h = S z + a (b, C): the linear term of sites whose posterior logits are z."""
        return self._rows(site @ self._flat(logits)) + dual

    def _flat(self, rows: Tensor) -> Tensor:
        return rows.T.reshape(-1)

    def _rows(self, flat: Tensor) -> Tensor:
        return flat.reshape(self.classes, -1).T

    def _spread(self, blocks: Tensor) -> Tensor:
        """Per-row blocks (b, C, C) as one (C b, C b) matrix, classes outermost."""
        return torch.diag_embed(blocks.permute(1, 2, 0)).permute(0, 2, 1, 3).reshape(self.matrix.shape)

    def _row_blocks(self, matrix: Tensor) -> Tensor:
        rows = len(matrix) // self.classes
        by_class = matrix.reshape(self.classes, rows, self.classes, rows)
        return by_class.diagonal(dim1=1, dim2=3).permute(2, 0, 1)

    def _system(self, precision: Tensor) -> Tensor:
        system = self._spread(precision) @ self.matrix
        system.diagonal().add_(1)
        return system


Gram = BlockGram | DenseGram
