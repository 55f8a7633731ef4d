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
            "fit again with --covariance class_block, full or diagonal"
        )
    return FAMILIES[type(belief)]


def _joined_full(old: Full, new: Full) -> Full:
    return Full(torch.cat([old.mean, new.mean]), torch.block_diag(old.covariance, new.covariance))


def _kept_full(old: Full, rows: Tensor) -> Full:
    classes, features = old.mean.shape
    blocks = old.covariance.reshape(classes, features, classes, features)
    covariance = blocks[rows][:, :, rows].reshape(len(rows) * features, -1)
    return Full(old.mean[rows], covariance)


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
}
