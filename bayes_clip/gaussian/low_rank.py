"""The low-rank belief: a precision that is diagonal plus low rank, truncated after every batch (LO-FI).

Chang, Durán-Martín, Shestopaloff, Jones & Murphy (2023), "Low-rank extended Kalman filtering for online
learning of neural networks from streaming data", arXiv 2305.19535; the remainder is diagonal, not spherical.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.design import classes_outermost, pull_back, times
from bayes_clip.gaussian.logits import DowndatedLogits, JointLogits
from bayes_clip.gaussian.matrices import root_of
from bayes_clip.gaussian.site_gram import SiteGram, information_diagonal
from bayes_clip.kernels import low_rank as passes
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within

DEFAULT_RANK = 64


@dataclass(frozen=True)
class LowRankPrecision:
    """w ~ N(m, Λ⁻¹) with Λ = diag(υ) + W Wᵀ, W of rank L.

    A batch adds Hᵀ R H exactly; then the L largest directions of [W, Hᵀ R^½] are kept and the diagonal of the
    rest is folded into υ. Exact while the rank of all that was added is at most L; otherwise the diagonal of
    the precision is still exact (so the diagonal of the rest is treated as in `VariationalDiagonal`).
    The directions are found from the (L + C b)² Gram matrix: [W, Hᵀ R^½] itself is never made.

    O(P L) memory; per batch O(P L (L + C) b + (L + C b)³) time with a shared design, and P (C b)² more with a
    Jacobian. All of the update is done in float64.
    """

    mean: Tensor  # (C, D) or (P,)
    diagonal: Tensor  # υ, precision in the shape of the mean
    factor: Tensor  # W, (C, D, L) or (P, L)

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor, rank: int = DEFAULT_RANK) -> Self:
        """Independent weights with the given mean and variance, both (C, D) or (P,); W of `rank` columns.

        No more columns than there are weights are kept. The default of 64 is what memory of 64 diagonal
        beliefs buys, whatever the problem.
        """
        return cls(mean, 1 / variance, mean.new_zeros(*mean.shape, min(rank, mean.numel())))

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch, their Gram matrix in float64; as `cross` H W, H υ⁻¹ W (2, b, C, L)."""
        plain, scaled = passes.seen(self.factor, self.diagonal, design)
        removed = torch.linalg.solve_triangular(self._inner, classes_outermost(scaled).mT, upper=False)
        gram = _dense_gram(design.double(), 1 / self.diagonal.double()) - removed.mT @ removed
        logits = times(design, self.mean)
        return Projection(logits, SiteGram(gram, logits.shape[1]), torch.stack((plain, scaled)), design)

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Posterior for dual a (b, C) and sites (b, C, C), truncated to the rank of W."""
        design, sites, shift = projection.design.double(), downdate.double(), dual.double()
        direction = torch.einsum("bcl,bc->l", projection.cross[1], shift)[:, None]
        after = self._largest(projection, root_of(sites), torch.cholesky_solve(direction, self._inner)[:, 0])
        diagonal = self.diagonal.double()
        mean = self.mean.double() + (pull_back(design, shift) - after.along) / diagonal
        # in exact arithmetic the part that is kept has no larger diagonal than the whole
        rest = (after.released + information_diagonal(design, sites)).clamp_min(0)
        return replace(
            self,
            mean=mean.to(self.mean),
            diagonal=(diagonal + rest).to(self.mean),
            factor=after.factor,
        )

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step, exactly: diagonal plus low rank is closed under γ² P + Q with Q diagonal.

        υ' = 1/(γ²/υ + Q) and W' = γ (υ'/υ) W chol((I + Wᵀ (Q υ'/υ) W)⁻¹): the predict step of LO-FI in
        its diagonal form, for a Q that may differ from weight to weight.
        """
        exact = self.exactly()
        noise, step = process_noise.double(), decay.double() if isinstance(decay, Tensor) else decay
        diagonal = 1 / (step**2 / exact.diagonal + noise)
        shrink = diagonal / exact.diagonal
        inner = _inner_product(exact.factor, (noise * shrink)[..., None] * exact.factor)
        inner.diagonal().add_(1)
        factor = _right_divided((step * shrink)[..., None] * exact.factor, torch.linalg.cholesky(inner))
        return replace(
            self,
            mean=prior_mean + decay * (self.mean - prior_mean),
            diagonal=diagonal.to(self.mean),
            factor=factor.to(self.mean),
        )

    def removed(self) -> Tensor:
        """F in the shape of W: the covariance is diag(1/υ) − F Fᵀ (Woodbury)."""
        return _right_divided(self.factor / self.diagonal[..., None], self._inner)

    @property
    def row_numbers(self) -> int:
        """What the labels removed along each direction, for each class; or the row's own covariance."""
        classes, rank = self.mean.shape[0], self.factor.shape[-1]
        return 3 * classes * rank if rank < classes else classes * (rank + 6 * classes)

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of N rows."""
        classes = self.mean.shape[0] if design.ndim == 2 else design.shape[1]
        numbers = classes * self.factor.shape[-1] + design[:1].numel()
        return by_rows(self._moments, design, rows_within(budget, numbers * design.element_size()))

    def _moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        own, removed = times(design.square(), 1 / self.diagonal), self._removed_from(design)
        return times(design, self.mean), (own - removed.square_().sum(-1)).clamp_min_(0)

    def predicted_logits(self, design: Tensor) -> DowndatedLogits | JointLogits:
        """Moments and draws of the logits of n rows: by low-rank algebra below C directions."""
        mean, seen, variance = times(design, self.mean), self._removed_from(design), 1 / self.diagonal
        if design.ndim == 2 and seen.shape[2] < seen.shape[1]:
            return DowndatedLogits.of(mean, times(design.square(), variance), seen)
        own = (design * variance) @ design.mT if design.ndim == 3 else _own_class(design, variance)
        return JointLogits.of(mean, own - seen @ seen.mT)

    @property
    def variance(self) -> Tensor:
        """Variances of the weights, in the shape of the mean."""
        return 1 / self.diagonal - self._removed_here().square().sum(-1)

    def weights_from(self, noise: Tensor) -> Tensor:
        """Draws (..., C, D) or (..., P) of the weights from standard normal `noise` of that shape.

        With Y = υ^-½ W and Yᵀ Y = V σ Vᵀ, (I + Y Yᵀ)^-½ is I − Y V diag(1/(√(1 + σ) (1 + √(1 + σ)))) Vᵀ Yᵀ.
        """
        deviation = self.diagonal.rsqrt()
        scaled = deviation[..., None] * self.factor
        values, vectors = torch.linalg.eigh(_inner_product(scaled, scaled))
        turned = (scaled @ vectors).reshape(-1, len(values))
        root = (1 + values.clamp_min(0)).sqrt()
        flat = noise.reshape(-1, self.mean.numel())
        whitened = flat - (flat @ turned / (root * (1 + root))) @ turned.mT
        return self.mean + deviation * whitened.reshape(noise.shape)

    def log_density(self, weights: Tensor) -> Tensor:
        """log N(w; m, Λ⁻¹) for weights (..., C, D) or (..., P)."""
        excess = (weights - self.mean).reshape(-1, self.mean.numel())
        turned = excess @ self.factor.reshape(self.mean.numel(), -1)
        square = excess.square() @ self.diagonal.reshape(-1) + turned.square().sum(-1)
        inner = _inner_product(self.factor, self.factor / self.diagonal[..., None])
        inner.diagonal().add_(1)
        determinant = torch.logdet(inner) + (self.diagonal / (2 * math.pi)).log().sum()
        return ((determinant - square) / 2).reshape(weights.shape[: weights.ndim - self.mean.ndim])

    def _largest(self, projection: Projection, root: Tensor, direction: Tensor) -> passes.Turned:
        """The L largest left singular directions of [W, Hᵀ S], and W y for the `direction` y (L,).

        S (b, C, C) per row. From the Gram matrix of the columns, those of the second part listed row by row.
        """
        seen = root.mT @ projection.cross[0]
        rank, count = self.factor.shape[-1], root.shape[0] * root.shape[1]
        inner = torch.empty(rank + count, rank + count, dtype=torch.float64, device=root.device)
        inner[:rank, :rank] = self._squares[0]
        inner[rank:, :rank] = seen.reshape(count, rank)
        inner[:rank, rank:] = inner[rank:, :rank].mT
        inner[rank:, rank:] = _root_gram(projection.design.double(), root)
        turn = torch.linalg.eigh(inner).eigenvectors[:, -rank:]
        sites = root @ turn[rank:].reshape(*root.shape[:2], rank)
        return passes.turned(self.factor, projection.design, turn[:rank], sites, direction)

    @cached_property
    def _squares(self) -> tuple[Tensor, Tensor]:
        """WᵀW and Wᵀ υ⁻¹ W, (L, L) in float64."""
        return passes.squares(self.factor, self.diagonal)

    @cached_property
    def _inner(self) -> Tensor:
        """Cholesky factor of I + Wᵀ υ⁻¹ W, (L, L) in float64."""
        inner = self._squares[1].clone()
        inner.diagonal().add_(1)
        return torch.linalg.cholesky(inner)

    def exactly(self) -> LowRankPrecision:
        """The same in float64."""
        return LowRankPrecision(self.mean.double(), self.diagonal.double(), self.factor.double())

    def _removed_from(self, design: Tensor) -> Tensor:
        """H F (n, C, L)."""
        if design.ndim == 3:
            return times(design, self._columns)
        return (design @ self._columns).unflatten(1, (len(self.factor), self.factor.shape[-1]))

    @cached_property
    def _columns(self) -> Tensor:
        """F (P, L), that of a head (C, D, L) as (D, C L): laid out for one matrix product with rows (n, D).

        As large as W, and kept: predictions come in chunks.
        """
        removed = self._removed_here()
        return removed.transpose(0, 1).flatten(1) if removed.ndim == 3 else removed

    def _removed_here(self) -> Tensor:
        """`removed` in the belief's own dtype, found in float64 within the budget of working memory."""
        rank = self.factor.shape[-1]
        flat, precision = self.factor.reshape(-1, rank), self.diagonal.reshape(-1, 1)
        at_once = rows_within(WORKING_BYTES, 8 * 4 * rank)
        parts = list(zip(flat.split(at_once), precision.split(at_once), strict=True))
        inner = torch.eye(rank, dtype=torch.float64, device=flat.device)
        for part, own in parts:
            inner += part.double().mT @ (part.double() / own.double())
        lower = torch.linalg.cholesky(inner)
        removed = torch.empty_like(flat)
        for (part, own), into in zip(parts, removed.split(at_once), strict=True):
            into.copy_(_right_divided(part.double() / own.double(), lower))
        return removed.reshape(self.factor.shape)


def _inner_product(left: Tensor, right: Tensor) -> Tensor:
    """Lᵀ R over the weights, (k, l), for (C, D, k) and (C, D, l), or (P, k) and (P, l)."""
    return left.reshape(-1, left.shape[-1]).mT @ right.reshape(-1, right.shape[-1])


def _right_divided(factor: Tensor, lower: Tensor) -> Tensor:
    """F L⁻ᵀ for F (C, D, k) or (P, k) and lower triangular L (k, k)."""
    flat = factor.reshape(-1, factor.shape[-1])
    return torch.linalg.solve_triangular(lower, flat.mT, upper=False).mT.reshape(factor.shape)


def _own_class(design: Tensor, variance: Tensor) -> Tensor:
    """Diagonal covariance of each row's logits (b, C, C) under a shared design."""
    return torch.diag_embed(design.square() @ variance.mT)


def _dense_gram(design: Tensor, variance: Tensor) -> Tensor:
    """H diag(v) Hᵀ, (C b, C b), classes outermost."""
    if design.ndim == 2:
        return torch.block_diag(*((design * variance[:, None, :]) @ design.mT))
    rows = classes_outermost(design)
    return (rows * variance) @ rows.mT


def _root_gram(design: Tensor, root: Tensor) -> Tensor:
    """Sᵀ H Hᵀ S, (b C, b C), rows outermost, for per-row S (b, C, C)."""
    rows, classes = root.shape[:2]
    if design.ndim == 2:
        # H Hᵀ ties row i to row j by xᵢᵀ xⱼ, class by class: the block is xᵢᵀ xⱼ Sᵢᵀ Sⱼ
        stacked = root.transpose(1, 2).reshape(rows * classes, classes)
        blocks = (stacked @ stacked.mT).reshape(rows, classes, rows, classes)
        return (blocks * (design @ design.mT)[:, None, :, None]).reshape(rows * classes, -1)
    seen = (root.mT @ design).reshape(rows * classes, -1)
    return seen @ seen.mT
