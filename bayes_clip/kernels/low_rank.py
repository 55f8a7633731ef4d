"""Passes over the factor W of a precision diag(υ) + W Wᵀ: all that an update asks of its P L numbers.

W is (C, D, L) for a head with design (b, D), or (P, L) for a Jacobian (b, C, P); υ is shaped like W without
its last axis. Sums are in float64 whatever the precision of W. An update reads W three times and writes it
once; everything between is of the size of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.kernels import compiled

MOST_RANK = 64  # of which a Triton program keeps L² sums in its registers
CACHED = 2**18  # numbers of W that a CPU keeps in its caches while it goes over them


@dataclass(frozen=True)
class Turned:
    """W⁺ and what the update needs to know of the way there."""

    factor: Tensor  # W⁺ in the shape and precision of W
    released: Tensor  # Σ_l W² − Σ_l W⁺², float64, in the shape of υ
    along: Tensor  # W y, float64, in the shape of υ


def squares(factor: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """WᵀW and Wᵀ υ⁻¹ W, (L, L) in float64. 4 P L² operations."""
    rank = factor.shape[-1]
    flat, scale = factor.reshape(-1, rank), diagonal.reshape(-1)
    if compiled(factor) and rank <= MOST_RANK:
        from bayes_clip.kernels.low_rank_triton import squares as compiled_squares

        return compiled_squares(flat, scale)
    plain = torch.zeros(rank, rank, dtype=torch.float64, device=factor.device)
    scaled = torch.zeros_like(plain)
    at_once = max(1, CACHED // max(rank, 1))
    for part, own in zip(flat.split(at_once), scale.split(at_once), strict=True):
        exact = part.double()
        plain.addmm_(exact.mT, exact)
        scaled.addmm_(exact.mT, exact / own.double()[:, None])
    return plain, scaled


def seen(factor: Tensor, diagonal: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
    """H W and H υ⁻¹ W, each (b, C, L) in float64. 4 P L b operations for a head."""
    if _is_compiled(factor, design):
        from bayes_clip.kernels.low_rank_triton import seen as compiled_seen

        return compiled_seen(factor, diagonal, design)
    rows, exact = design.double(), factor.double()
    products = rows @ exact, rows @ (exact / diagonal.double()[..., None])
    return products if design.ndim == 3 else (products[0].transpose(0, 1), products[1].transpose(0, 1))


def turned(factor: Tensor, design: Tensor, turn: Tensor, sites: Tensor, direction: Tensor) -> Turned:
    """W⁺ = W T + Hᵀ Z for T (L, L) and Z (b, C, L), both float64, and W y for y (L,).

    2 P L (L + b) operations for a head.
    """
    if _is_compiled(factor, design):
        from bayes_clip.kernels.low_rank_triton import turned as compiled_turned

        return compiled_turned(factor, design, turn, sites, direction)
    exact, rows = factor.double(), design.double()
    new = exact @ turn
    if design.ndim == 2:
        new += rows.mT @ sites.transpose(0, 1)
    else:
        new += torch.einsum("bcp,bcl->pl", rows, sites)
    released = exact.square().sum(-1) - new.square().sum(-1)
    return Turned(new.to(factor), released, exact @ direction)


def _is_compiled(factor: Tensor, design: Tensor) -> bool:
    """Whether the Triton kernels for heads take these."""
    return compiled(factor) and design.ndim == 2 and factor.shape[-1] <= MOST_RANK
