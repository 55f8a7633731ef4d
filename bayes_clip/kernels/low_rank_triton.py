"""The passes over the factor of a low-rank precision on CUDA: W is read as it is, and summed in float64.

`squares` takes 4 P L² operations, `seen` 4 P L b and `turned` 2 P L (L + b), on the tensor cores that a data
centre's GPU has for float64. Each reads the P L numbers of W once, in their own precision, where plain torch
would first write them out in float64, then scaled by υ, then solved against; `turned` writes W⁺ once.
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bayes_clip.kernels.low_rank import Turned

SPAN = 1024  # weights of one program's part of WᵀW
TILE = 16  # weights in registers at a time
MOST_ROWS = 64  # of the batch in registers at a time
WARPS = 8


@triton.jit
def squares_kernel(
    factor,
    diagonal,
    parts,
    weights,
    rank,
    SPAN: tl.constexpr,
    TILE: tl.constexpr,
    RANK: tl.constexpr,
):
    """Program: span of weights. `factor` (P, L), `diagonal` (P,), `parts` (spans, 2, L, L) in float64."""
    span = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, RANK)
    plain = tl.zeros((RANK, RANK), tl.float64)
    scaled = tl.zeros((RANK, RANK), tl.float64)
    for start in range(0, SPAN, TILE):
        weight = span * SPAN + start + tl.arange(0, TILE)
        inside = (weight < weights)[:, None] & (column < rank)[None, :]
        tile = tl.load(factor + weight[:, None] * rank + column[None, :], mask=inside, other=0.0)
        tile = tile.to(tl.float64)
        own = tl.load(diagonal + weight, mask=weight < weights, other=1.0).to(tl.float64)
        turned = tl.trans(tile)
        plain = tl.dot(turned, tile, plain, input_precision="ieee", out_dtype=tl.float64)
        scaled = tl.dot(turned, tile / own[:, None], scaled, input_precision="ieee", out_dtype=tl.float64)
    inside = (column < rank)[:, None] & (column < rank)[None, :]
    place = parts + span * 2 * rank * rank + column[:, None] * rank + column[None, :]
    tl.store(place, plain, mask=inside)
    tl.store(place + rank * rank, scaled, mask=inside)


@triton.jit
def seen_kernel(
    factor,
    diagonal,
    design,
    plain,
    scaled,
    features,
    rank,
    count,
    classes,
    TILE: tl.constexpr,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Program (tile of rows, class). `design` (b, D); `plain` and `scaled` (b, C, L) in float64."""
    owner = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, RANK)
    total = tl.zeros((ROWS, RANK), tl.float64)
    total_scaled = tl.zeros((ROWS, RANK), tl.float64)
    for start in range(0, features, TILE):
        feature = start + tl.arange(0, TILE)
        own = owner * features + feature
        inside = (feature < features)[:, None] & (column < rank)[None, :]
        tile = tl.load(factor + own[:, None] * rank + column[None, :], mask=inside, other=0.0)
        inside = (row < count)[:, None] & (feature < features)[None, :]
        rows = tl.load(design + row[:, None] * features + feature[None, :], mask=inside, other=0.0)
        scale = tl.load(diagonal + own, mask=feature < features, other=1.0).to(tl.float64)
        tile, rows = tile.to(tl.float64), rows.to(tl.float64)
        total = tl.dot(rows, tile, total, input_precision="ieee", out_dtype=tl.float64)
        total_scaled = tl.dot(
            rows / scale[None, :], tile, total_scaled, input_precision="ieee", out_dtype=tl.float64
        )
    inside = (row < count)[:, None] & (column < rank)[None, :]
    place = (row[:, None] * classes + owner) * rank + column[None, :]
    tl.store(plain + place, total, mask=inside)
    tl.store(scaled + place, total_scaled, mask=inside)


@triton.jit
def turned_kernel(
    factor,
    design,
    turn,
    sites,
    direction,
    new,
    released,
    along,
    features,
    rank,
    count,
    classes,
    TILE: tl.constexpr,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Program (tile of weights, class). `sites` (b, C, L), `turn` (L, L), `direction` (L,) in float64."""
    owner = tl.program_id(1).to(tl.int64)
    feature = tl.program_id(0) * TILE + tl.arange(0, TILE)
    column = tl.arange(0, RANK)
    own = owner * features + feature
    inside = (feature < features)[:, None] & (column < rank)[None, :]
    place = own[:, None] * rank + column[None, :]
    tile = tl.load(factor + place, mask=inside, other=0.0).to(tl.float64)
    square = (column < rank)[:, None] & (column < rank)[None, :]
    turns = tl.load(turn + column[:, None] * rank + column[None, :], mask=square, other=0.0)
    total = tl.dot(tile, turns, input_precision="ieee", out_dtype=tl.float64)
    for start in range(0, count, ROWS):
        row = start + tl.arange(0, ROWS)
        columns = tl.load(
            design + row[None, :] * features + feature[:, None],
            mask=(row < count)[None, :] & (feature < features)[:, None],
            other=0.0,
        ).to(tl.float64)
        site = tl.load(
            sites + (row[:, None] * classes + owner) * rank + column[None, :],
            mask=(row < count)[:, None] & (column < rank)[None, :],
            other=0.0,
        )
        total = tl.dot(columns, site, total, input_precision="ieee", out_dtype=tl.float64)
    tl.store(new + place, total.to(new.dtype.element_ty), mask=inside)
    tl.store(released + own, tl.sum(tile * tile - total * total, 1), mask=feature < features)
    step = tl.load(direction + column, mask=column < rank, other=0.0)
    tl.store(along + own, tl.sum(tile * step[None, :], 1), mask=feature < features)


def squares(factor: Tensor, diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """WᵀW and Wᵀ υ⁻¹ W for W (P, L) and υ (P,): see `low_rank.squares`."""
    weights, rank = factor.shape
    spans = triton.cdiv(weights, SPAN)
    parts = torch.empty(spans, 2, rank, rank, dtype=torch.float64, device=factor.device)
    with torch.cuda.device_of(factor):
        squares_kernel[(spans,)](
            factor.contiguous(),
            diagonal.contiguous(),
            parts,
            weights,
            rank,
            SPAN=SPAN,
            TILE=TILE,
            RANK=_padded(rank),
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    plain, scaled = parts.sum(0)
    return plain, scaled


def seen(factor: Tensor, diagonal: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
    """H W and H υ⁻¹ W (b, C, L) for a head: see `low_rank.seen`."""
    (classes, features, rank), count = factor.shape, len(design)
    plain = torch.empty(count, classes, rank, dtype=torch.float64, device=factor.device)
    scaled = torch.empty_like(plain)
    rows = min(MOST_ROWS, _padded(count))
    with torch.cuda.device_of(factor):
        seen_kernel[(triton.cdiv(count, rows), classes)](
            factor.contiguous(),
            diagonal.contiguous(),
            design.contiguous(),
            plain,
            scaled,
            features,
            rank,
            count,
            classes,
            TILE=TILE,
            RANK=_padded(rank),
            ROWS=rows,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return plain, scaled


def turned(factor: Tensor, design: Tensor, turn: Tensor, sites: Tensor, direction: Tensor) -> Turned:
    """W⁺ and its by-products for a head: see `low_rank.turned`."""
    (classes, features, rank), count = factor.shape, len(design)
    new = torch.empty_like(factor, memory_format=torch.contiguous_format)
    released = torch.empty(classes, features, dtype=torch.float64, device=factor.device)
    along = torch.empty_like(released)
    with torch.cuda.device_of(factor):
        turned_kernel[(triton.cdiv(features, TILE), classes)](
            factor.contiguous(),
            design.contiguous(),
            turn.contiguous(),
            sites.contiguous(),
            direction.contiguous(),
            new,
            released,
            along,
            features,
            rank,
            count,
            classes,
            TILE=TILE,
            RANK=_padded(rank),
            ROWS=16,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return Turned(new, released, along)


def _padded(size: int) -> int:
    """The next power of two from 16 on: what a tile of a matrix product can have."""
    return max(16, triton.next_power_of_2(size))
