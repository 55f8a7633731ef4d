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

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature, SoftmaxCurvature
from bayes_clip.gaussian.dense_gram import DenseGram
from bayes_clip.gaussian.matrices import inverted, removed, symmetric
from bayes_clip.gaussian.site_blocks import block_times, inverses, joined, posteriors
from bayes_clip.observation import Observation
from bayes_clip.threads import shared_out

CPU_DRAWS = 2**17  # numbers drawn at once, which stay in a core's cache
CUDA_DRAWS = 2**26


@dataclass(frozen=True)
class Coupled:
    """A softmax on Gram blocks: E_c = (D_c⁻¹ + G_c)⁻¹, some classes in each part, and (Σ_c E_c)⁻¹."""

    probabilities: Tensor  # (b, C)
    parts: list[Tensor]
    of_sum: Tensor  # (b, b)
    log_determinant: Tensor  # () log |I + R G|


@dataclass(frozen=True)
class BlockGram:
    """One Gram block per class, (C, b, b): the prior logits of different classes are independent.

    What is told of sites goes through E = (I + W G)⁻¹ W: see `site_blocks`.
    """

    blocks: Tensor
    known: torch.dtype = torch.float64  # precision in which the belief knows the blocks
    _last: list[Coupled] = field(init=False, default_factory=list, repr=False, compare=False)

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
        return self._times(self.blocks, dual)

    def newton(self, curvature: Curvature, excess: Tensor, residual: Tensor) -> Tensor:
        """Dual of the Newton step, (b, C); `excess` z − z₀ at the expansion point and residual r, (b, C).

        The step solves a = (I + R G)⁻¹ (R (z − z₀) + r), with the coupling of a softmax in R.
        """
        target = curvature.times(excess) + residual
        if not isinstance(curvature, SoftmaxCurvature):
            return target - self._times(self._removal(curvature.own), self.times(target))
        coupled = self._coupled(curvature)
        parts = coupled.parts
        seen = self._own(self.times(target)).split([len(part) for part in parts])
        shift = joined([block_times(part, rows) for part, rows in zip(parts, seen, strict=True)])
        shared = coupled.of_sum @ self._total(shift.sum(0))
        return target - self._all(shift - joined([part @ shared for part in parts]))

    def downdate(self, curvature: Curvature) -> Tensor:
        """Diagonal blocks (C, b, b) of (I + R G)⁻¹ R.

        Where the curvature couples the classes, keeping only these blocks is the assumed-density projection
        of the class-block belief.
        """
        if not isinstance(curvature, SoftmaxCurvature):
            return self._removal(curvature.own)
        coupled = self._coupled(curvature)
        shared = coupled.of_sum
        return joined(
            [symmetric(torch.baddbmm(part, part @ shared, part, alpha=-1)) for part in coupled.parts]
        )

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        if not isinstance(curvature, SoftmaxCurvature):
            return self._total(inverses(self.blocks, self._own(curvature.own))[1])
        return self._coupled(curvature).log_determinant

    def posterior(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Excess z − z₀ of the posterior mean and standard deviations of the logits, (b, C) each.

        For diagonal site precision w and pull h − W z₀, both (b, C).
        """
        excess, variance = posteriors(self.blocks, self._own(precision), self._own(pull))
        return self._all(excess).contiguous(), self._all(variance.sqrt()).contiguous()

    def given_sites(self, precision: Tensor, linear: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and posterior standard deviations of the logits (b, C) given diagonal sites.

        Site precision w and linear term h, both (b, C); `predicted` logits z₀ (b, C).
        """
        pull = linear - precision * predicted
        excess, deviation = self.posterior(precision, pull)
        return pull - precision * excess, deviation

    def concluded(self, precision: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and downdate (C, b, b) of diagonal sites w (b, C), with pull h − W z₀ (b, C)."""
        downdate = self._removal(precision)
        return pull - self._times(downdate, self.times(pull)), downdate

    def site_downdate(self, precision: Tensor) -> Tensor:
        """(I + W G)⁻¹ W, (C, b, b), for diagonal site precision w (b, C)."""
        return self._removal(precision)

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
        parts = shared_out(lambda part: self.expected(observation, self.samples(*part)), list(split))
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
        return self._all(self.blocks.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt())

    def row_covariance(self) -> Tensor:
        """Covariance of each row's logits, (b, C, C): diagonal."""
        return torch.diag_embed(self._all(self.blocks.diagonal(dim1=1, dim2=2)))

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

    def _coupled(self, curvature: SoftmaxCurvature) -> Coupled:
        """The inverses that a softmax needs; its scores, step, downdate and determinant ask for the same."""
        probabilities = curvature.probabilities
        if (
            self._last
            and not probabilities.is_cuda
            and torch.equal(self._last[0].probabilities, probabilities)
        ):
            return self._last[0]
        parts, inner = inverses(self.blocks, self._own(probabilities))
        total = self._total(torch.stack([part.sum(0) for part in parts]).sum(0))
        of_sum, shared = inverted(total[None])
        self._last[:] = [Coupled(probabilities, parts, of_sum[0], self._total(inner) + shared)]
        return self._last[0]

    def _removal(self, precision: Tensor) -> Tensor:
        """(I + W G)⁻¹ W, (C, b, b), for diagonal sites w (b, C)."""
        return joined(inverses(self.blocks, self._own(precision))[0])

    def _times(self, blocks: Tensor, rows: Tensor) -> Tensor:
        """Blocks (C, b, b) times rows (b, C), class by class."""
        return self._all(block_times(blocks, self._own(rows)))

    def _own(self, rows: Tensor) -> Tensor:
        """Rows (b, C) by class, (n, b), of the n classes whose blocks are here: all, unless shared out."""
        return rows.T.contiguous()

    def _all(self, classes: Tensor) -> Tensor:
        """The way back: rows (b, C) of what is known by class, (n, b), here."""
        return classes.T

    def _total(self, of_own: Tensor) -> Tensor:
        """A sum over all classes, of the sum over those here."""
        return of_own


Gram = BlockGram | DenseGram
