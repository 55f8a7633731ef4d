"""Classes that come and go: a belief with prior blocks added at its end, or with one class left out.

What is known of the other classes stays as it is, to the last bit. Exact: a new class is independent of the
others until its labels come, and leaving weights out of a Gaussian is keeping the blocks of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian.belief import Belief
from bayes_clip.gaussian.class_block import ClassBlock
from bayes_clip.gaussian.diagonal import Diagonal
from bayes_clip.gaussian.full import Full
from bayes_clip.gaussian.low_rank import LowRankPrecision
from bayes_clip.gaussian.variational_diagonal import VariationalDiagonal


@dataclass(frozen=True)
class _Classes:
    """How one family gains classes (belief, prior belief of the new ones) and keeps some (belief, rows)."""

    joined: Callable[[Any, Any], Any]
    kept: Callable[[Any, Tensor], Any]


def with_classes(belief: Belief, mean: Tensor, variance: Tensor) -> Belief:
    """`belief` and n classes more, with prior mean and variance (n, D).

    Raises:
        UserError: a family that cannot take them in.
    """
    return _family(belief).joined(belief, type(belief).from_prior(mean.contiguous(), variance.contiguous()))


def without_class(belief: Belief, index: int) -> Belief:
    """`belief` without the class `index`: the marginal of the others.

    Raises:
        UserError: a family that cannot leave one out.
    """
    rows = torch.arange(len(belief.mean), device=belief.mean.device)
    return _family(belief).kept(belief, rows[rows != index])


def site_with_classes(matrix: Tensor, count: int, rows: int) -> Tensor:
    """The precision of a batch's site, (C, b, b) or (C b, C b), that says nothing of `count` classes more."""
    if matrix.ndim == 3:
        return torch.cat([matrix, matrix.new_zeros(count, rows, rows)])
    return torch.block_diag(matrix, matrix.new_zeros(count * rows, count * rows))


def site_without_class(matrix: Tensor, index: int, rows: int) -> Tensor:
    """The precision of a batch's site, (C, b, b) or (C b, C b), without the class `index`."""
    if matrix.ndim == 3:
        return torch.cat([matrix[:index], matrix[index + 1 :]])
    kept = torch.ones(len(matrix), dtype=torch.bool, device=matrix.device)
    kept[index * rows : (index + 1) * rows] = False
    return matrix[kept][:, kept]


def _family(belief: Belief) -> _Classes:
    if type(belief) not in FAMILIES:
        raise UserError(
            f"{type(belief).__name__}: classes cannot come or go with this covariance; "
            "fit again with another --covariance, say class_block"
        )
    return FAMILIES[type(belief)]


def _joined_full(old: Full, new: Full) -> Full:
    return Full(torch.cat([old.mean, new.mean]), torch.block_diag(old.covariance, new.covariance))


def _kept_full(old: Full, rows: Tensor) -> Full:
    classes, features = old.mean.shape
    blocks = old.covariance.reshape(classes, features, classes, features)
    covariance = blocks[rows][:, :, rows].reshape(len(rows) * features, -1)
    return Full(old.mean[rows], covariance)


def _joined_low_rank(old: LowRankPrecision, new: LowRankPrecision) -> LowRankPrecision:
    factor = old.factor.new_zeros(*new.mean.shape, old.factor.shape[-1])
    mean, diagonal = torch.cat([old.mean, new.mean]), torch.cat([old.diagonal, new.diagonal])
    return LowRankPrecision(mean, diagonal, torch.cat([old.factor, factor]))


def _kept_low_rank(old: LowRankPrecision, rows: Tensor) -> LowRankPrecision:
    """The marginal covariance diag(1/υ) − F Fᵀ has a precision of the same form, found to rounding."""
    diagonal, removed = old.diagonal[rows].double(), old.exactly().removed()[rows]
    weighted = diagonal[..., None] * removed
    inner = torch.eye(removed.shape[-1]).to(removed) - torch.einsum("cdk,cdl->kl", removed, weighted)
    factor = torch.linalg.solve_triangular(
        torch.linalg.cholesky(inner), weighted.flatten(0, 1).mT, upper=False
    )
    return LowRankPrecision(
        old.mean[rows], old.diagonal[rows], factor.mT.reshape(removed.shape).to(old.mean).contiguous()
    )


FAMILIES: dict[type, _Classes] = {
    ClassBlock: _Classes(
        lambda old, new: ClassBlock(
            torch.cat([old.mean, new.mean]), torch.cat([old.covariance, new.covariance])
        ),
        lambda old, rows: ClassBlock(old.mean[rows], old.covariance[rows]),
    ),
    Diagonal: _Classes(
        lambda old, new: Diagonal(torch.cat([old.mean, new.mean]), torch.cat([old.variance, new.variance])),
        lambda old, rows: Diagonal(old.mean[rows], old.variance[rows]),
    ),
    Full: _Classes(_joined_full, _kept_full),
    LowRankPrecision: _Classes(_joined_low_rank, _kept_low_rank),
    VariationalDiagonal: _Classes(
        lambda old, new: VariationalDiagonal(
            torch.cat([old.mean, new.mean]), torch.cat([old.precision, new.precision])
        ),
        lambda old, rows: VariationalDiagonal(old.mean[rows], old.precision[rows]),
    ),
}
