"""The Gram matrix of a batch whose classes are not independent: see `gram`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature
from bayes_clip.gaussian.matrices import removed, root_of, symmetric
from bayes_clip.observation import Observation


@dataclass(frozen=True)
class DenseGram:
    """The whole covariance of the batch's logits, (C b, C b), classes outermost."""

    matrix: Tensor
    classes: int

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the numbers here."""
        return self.matrix.dtype

    @property
    def known(self) -> torch.dtype:
        """Precision in which what is drawn from it is worth having: its own."""
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
        return self._rows(_solved(self._system(curvature.dense()), target))

    def downdate(self, curvature: Curvature) -> Tensor:
        """(I + R G)⁻¹ R, (C b, C b)."""
        return self.site_downdate(curvature.dense())

    def log_determinant(self, curvature: Curvature) -> Tensor:
        """log |I + R G|, a scalar."""
        return torch.linalg.slogdet(self._system(curvature.dense())).logabsdet

    def given_sites(self, precision: Tensor, linear: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and a root (b, C, C) of each row's posterior covariance, given sites (b, C, C)."""
        target = self._flat(linear - self.site_times(precision, predicted))
        dual = self._rows(_solved(self._system(precision), target))
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
        return symmetric(_solved(self._system(precision), self._spread(precision)))

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


def _solved(system: Tensor, target: Tensor) -> Tensor:
    """system⁻¹ target, not looking whether that exists: what comes of it is not finite then."""
    return torch.linalg.solve_ex(system, target)[0]
