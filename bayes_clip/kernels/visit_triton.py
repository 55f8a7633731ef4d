"""`visit` on CUDA: the rank-b downdate and the next product in one read and one write of the covariance.

A program owns the rows of one tile of one class's block and walks over its columns: it loads a tile of P,
takes left rightᵀ away, stores it, and adds its product with the next design while it is in registers. No two
programs touch the same rows, so that P is changed in place without a second copy.

Per visit 2 C D² (b₁ + b₂) operations, and 2 C D² numbers of covariance moved (C D² for the product alone);
the factors, C D (b₁ + b₂) numbers, stay in the second-level cache between the tiles of a class. All sums are
kept in the covariance's own dtype; products are IEEE ones, never TF32.
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 128, 32  # of a tile of the covariance: more than 3 multiply-adds per load from shared memory
DEPTH = 32  # columns of the downdate's factors that are in registers at a time
MOST_PRODUCTS = 64  # rows of the next design that one launch takes
WARPS = 8


@triton.jit
def visit_kernel(
    covariance,
    left,
    right,
    design,
    cross,
    features,
    removed,
    products,
    first_product,
    REMOVES: tl.constexpr,
    MULTIPLIES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    PRODUCTS: tl.constexpr,
):
    """Program (row tile, class); arrays are contiguous, P (C, D, D), left and right (C, D, `removed`),
    design (`products`, D), cross (C, D, `products`)."""
    dtype = covariance.dtype.element_ty
    owner = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    depth = tl.arange(0, DEPTH)
    product = first_product + tl.arange(0, PRODUCTS)
    block = covariance + owner * features * features
    own_left = left + owner * features * removed
    own_right = right + owner * features * removed
    total = tl.zeros((ROWS, PRODUCTS), dtype)
    for start in range(0, features, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        place = block + row[:, None].to(tl.int64) * features + column[None, :]
        inside = (row < features)[:, None] & (column < features)[None, :]
        tile = tl.load(place, mask=inside, other=0.0)
        if REMOVES:
            taken = tl.zeros((ROWS, COLUMNS), dtype)
            for first in range(0, removed, DEPTH):
                at = first + depth
                rows_left = tl.load(
                    own_left + row[:, None] * removed + at[None, :],
                    mask=(row < features)[:, None] & (at < removed)[None, :],
                    other=0.0,
                )
                columns_right = tl.load(
                    own_right + column[None, :] * removed + at[:, None],
                    mask=(column < features)[None, :] & (at < removed)[:, None],
                    other=0.0,
                )
                taken = tl.dot(rows_left, columns_right, taken, input_precision="ieee", out_dtype=dtype)
            tile -= taken
            tl.store(place, tile, mask=inside)
        if MULTIPLIES:
            seen = tl.load(
                design + product[None, :] * features + column[:, None],
                mask=(product < products)[None, :] & (column < features)[:, None],
                other=0.0,
            )
            total = tl.dot(tile, seen, total, input_precision="ieee", out_dtype=dtype)
    if MULTIPLIES:
        tl.store(
            cross + owner * features * products + row[:, None] * products + product[None, :],
            total,
            mask=(row < features)[:, None] & (product < products)[None, :],
        )


def visit(
    covariance: Tensor, left: Tensor | None, right: Tensor | None, design: Tensor | None
) -> Tensor | None:
    """P_c ← P_c − left_c right_cᵀ in place, and P_c Φᵀ (C, D, b₂): see `visit.visit`.

    Every 64 rows of the design beyond the first 64 take one more launch, and one more read of P.
    """
    if left is None or right is None:
        left = right = covariance.new_empty(0)
    if design is None:
        if left.numel():
            _launch(covariance, left, right, covariance.new_empty(0), covariance.new_empty(0), 0)
        return None
    cross = covariance.new_empty(*covariance.shape[:2], len(design))
    for first in range(0, len(design), MOST_PRODUCTS):
        _launch(covariance, left, right, design, cross, first)
        left = right = covariance.new_empty(0)  # taken away by the first launch
    return cross


def _launch(
    covariance: Tensor, left: Tensor, right: Tensor, design: Tensor, cross: Tensor, first_product: int
) -> None:
    """One launch over all of P; empty factors take nothing away, an empty design is not multiplied with."""
    classes, features = covariance.shape[:2]
    products = cross.shape[-1] if cross.numel() else 0
    if not covariance.is_contiguous():
        raise ValueError("the covariance is changed in place, so it has to be contiguous")
    with torch.cuda.device_of(covariance):
        visit_kernel[(triton.cdiv(features, ROWS), classes)](
            covariance,
            left.contiguous(),
            right.contiguous(),
            design.contiguous(),
            cross,
            features,
            left.shape[-1],
            products,
            first_product,
            REMOVES=left.numel() > 0,
            MULTIPLIES=products > 0,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            DEPTH=DEPTH,
            PRODUCTS=min(MOST_PRODUCTS, max(16, triton.next_power_of_2(products - first_product))),
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
