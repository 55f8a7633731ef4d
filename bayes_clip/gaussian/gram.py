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

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature, SoftmaxCurvature
from bayes_clip.gaussian.matrices import inverted, removed, root_of, symmetric
from bayes_clip.observation import Observation

CPU_DRAWS = 2**17  # numbers drawn at once, which stay in a core's cache
CUDA_DRAWS = 2**26


@dataclass(frozen=True)
class BlockGram:
    """One Gram block per class, (C, b, b): the prior logits of different classes are independent.

    Everything but `times` goes through E = (I + W G)⁻¹ W = W^½ (I + W^½ G W^½)⁻¹ W^½, one inverse per class.
    """

    blocks: Tensor
    known: torch.dtype = torch.float64  # precision in which the belief knows the blocks

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the numbers here."""
        return self.blocks.dtype

    def double(self) -> Self:
        """The same in float64, symmetric to the last bit."""
        return replace(self, blocks=symmetric(self.blocks.double()), known=self.blocks.dtype)

    def rough(self) -> Self:
        """The same in no more precision than the belief has; on CUDA as it is: nobody could look back."""
        if self.blocks.is_cuda or self.known == self.blocks.dtype:
            return self
        return replace(self, blocks=self.blocks.to(self.known))

    def times(self, dual: Tensor) -> Tensor:
        """G a for a dual (b, C)."""
        return torch.einsum("cij,jc->ic", self.blocks, dual)

    def newton(self, curvature: Curvature, excess: Tensor, residual: Tensor) -> Tensor:
        """Dual of the Newton step, (b, C); `excess` z − z₀ at the expansion point and residual r, (b, C).

        The step solves a = (I + R G)⁻¹ (R (z − z₀) + r), with the coupling of a softmax in R.
        """
        target = curvature.times(excess) + residual
        if not isinstance(curvature, SoftmaxCurvature):
            return target - self._times(self._inverse(curvature.own)[0], self.times(target))
        precision, _ = self._inverse(curvature.probabilities)
        shift = self._times(precision, self.times(target))
        shared = inverted(precision.sum(0, keepdim=True))[0][0] @ shift.sum(-1)
        return target - shift + (precision @ shared).T

    def downdate(self, curvature: Curvature) -> Tensor:
        """Diagonal blocks (C, b, b) of (I + R G)⁻¹ R.

        Where the curvature couples the classes, keeping only these blocks is the assumed-density projection
        of the class-block belief.
        """
        if not isinstance(curvature, SoftmaxCurvature):
            return self._inverse(curvature.own)[0]
        precision, _ = self._inverse(curvature.probabilities)
        shared, _ = inverted(precision.sum(0, keepdim=True))
        return symmetric(torch.baddbmm(precision, precision @ shared, precision, alpha=-1))

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        if not isinstance(curvature, SoftmaxCurvature):
            return self._inverse(curvature.own)[1]
        precision, inner = self._inverse(curvature.probabilities)
        return inner + inverted(precision.sum(0, keepdim=True))[1]

    def posterior(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Excess z − z₀ of the posterior mean and standard deviations of the logits, (b, C) each.

        For diagonal site precision w and pull h − W z₀, both (b, C).
        """
        cross = self.blocks @ self._inverse(precision)[0]  # G E
        seen = self.times(pull)
        excess = seen - self._times(cross, seen)
        variance = self.blocks.diagonal(dim1=1, dim2=2) - cross.mul_(self.blocks).sum(2)
        return excess, variance.clamp_min(0).sqrt().T

    def given_sites(self, precision: Tensor, linear: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and posterior standard deviations of the logits (b, C) given diagonal sites.

        Site precision w and linear term h, both (b, C); `predicted` logits z₀ (b, C).
        """
        pull = linear - precision * predicted
        excess, deviation = self.posterior(precision, pull)
        return pull - precision * excess, deviation

    def concluded(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and downdate (C, b, b) of diagonal sites w (b, C), with pull h − W z₀ (b, C)."""
        downdate, _ = self._inverse(precision)
        return pull - self._times(downdate, self.times(pull)), downdate

    def site_downdate(self, precision: Tensor) -> Tensor:
        """(I + W G)⁻¹ W, (C, b, b), for diagonal site precision w (b, C)."""
        return self._inverse(precision)[0]

    def samples(self, logits: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, b, C) of independent logits N(`logits`, `deviation`²) from standard normal `noise`."""
        return torch.addcmul(logits, noise, deviation)

    def expected(self, observation: Observation, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Average response and the average diagonal curvature, each (b, C), over samples (S, b, C)."""
        return observation.expected(samples)

    def averages(
        self, observation: Observation, logits: Tensor, deviation: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`expected` over the draws that `samples` makes, some rows at a time: they stay in the cache."""
        most = CUDA_DRAWS if noise.is_cuda else CPU_DRAWS
        rows = max(1, most * len(logits) // noise.numel())
        split = zip(logits.split(rows), deviation.split(rows), noise.split(rows, dim=1), strict=True)
        parts = [self.expected(observation, self.samples(*part)) for part in split]
        return torch.cat([mean for mean, _ in parts]), torch.cat([own for _, own in parts])

    def admissible(self, precision: Tensor) -> Tensor:
        """The nearest site precision (b, C) that is no less than zero."""
        return precision.clamp_min(0)

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

    def _inverse(self, precision: Tensor) -> tuple[Tensor, Tensor]:
        """E = (I + W G)⁻¹ W (C, b, b) for diagonal sites w (b, C), and log |I + W G| of all classes."""
        root = precision.T.sqrt()
        inner = (root[:, :, None] * self.blocks).mul_(root[:, None, :])
        inner.diagonal(dim1=1, dim2=2).add_(1)
        inverse, log_determinant = inverted(inner)
        return inverse.mul_(root[:, :, None]).mul_(root[:, None, :]), log_determinant


@dataclass(frozen=True)
class DenseGram:
    """The whole covariance of the batch's logits, (C b, C b), classes outermost."""

    matrix: Tensor
    classes: int

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the numbers here."""
        return self.matrix.dtype

    def double(self) -> DenseGram:
        """The same in float64, symmetric to the last bit."""
        return DenseGram(symmetric(self.matrix.double()), self.classes)

    def rough(self) -> DenseGram:
        """As it is: its systems are too large and too badly conditioned for less than float64."""
        return self

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

    def posterior(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Excess z − z₀ of the posterior mean (b, C) and a root (b, C, C) of each row's posterior covariance.

        For sites (b, C, C) with pull h − W z₀ (b, C).
        """
        dual, root = self.given_sites(precision, pull, torch.zeros_like(pull))
        return self.times(dual), root

    def concluded(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and downdate of sites (b, C, C) with pull h − W z₀ (b, C)."""
        dual, _ = self.given_sites(precision, pull, torch.zeros_like(pull))
        return dual, self.site_downdate(precision)

    def site_downdate(self, precision: Tensor) -> Tensor:
        """(I + W G)⁻¹ W, (C b, C b), for site precision (b, C, C)."""
        return symmetric(torch.linalg.solve(self._system(precision), self._spread(precision)))

    def samples(self, logits: Tensor, deviation: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, b, C) of each row's logits, `deviation` a root (b, C, C) of their covariance."""
        return logits + torch.einsum("bij,sbj->sbi", deviation, noise)

    def expected(self, observation: Observation, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Average response (b, C) and the average curvature (b, C, C) over samples (S, b, C)."""
        return observation.expected_joint(samples)

    def averages(
        self, observation: Observation, logits: Tensor, deviation: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`expected` over the draws that `samples` makes."""
        return self.expected(observation, self.samples(logits, deviation, noise))

    def admissible(self, precision: Tensor) -> Tensor:
        """The nearest site precision (b, C, C) without negative eigenvalues."""
        root = root_of(precision)
        return root @ root.mT

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
