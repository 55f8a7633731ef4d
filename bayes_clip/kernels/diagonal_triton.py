"""`condition` of independent weights on CUDA, in one launch.

A program owns one tile of the weights of one class. It multiplies panels of the class's downdate with its
columns of the design and sums them against the same columns at once, so that nothing between the arguments
and the two results is ever stored. C D b² operations (half of them saved by symmetry); 4 C D numbers moved,
and C b² numbers of downdate read again for every 64 weights, from the second-level cache.
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WEIGHTS = 64  # of a program
PANEL = 16  # rows of the batch in registers at a time
WARPS = 4


@triton.jit
def condition_kernel(
    mean,
    variance,
    design,
    dual,
    downdate,
    new_mean,
    new_variance,
    classes,
    features,
    count,
    WEIGHTS: tl.constexpr,
    PANEL: tl.constexpr,
):
    """Program (tile of weights, class); design (b, D), dual (b, C), downdate (C, b, b), all else (C, D)."""
    dtype = variance.dtype.element_ty
    owner = tl.program_id(1).to(tl.int64)
    weight = tl.program_id(0) * WEIGHTS + tl.arange(0, WEIGHTS)
    panel = tl.arange(0, PANEL)
    block = downdate + owner * count * count
    removed = tl.zeros((WEIGHTS,), dtype)
    pulled = tl.zeros((WEIGHTS,), dtype)
    for first in range(0, count, PANEL):
        mine = first + panel
        inside = (mine < count)[:, None] & (weight < features)[None, :]
        own = tl.load(design + mine[:, None] * features + weight[None, :], mask=inside, other=0.0)
        step = tl.load(dual + mine * classes + owner, mask=mine < count, other=0.0)
        pulled += tl.sum(step[:, None] * own, 0)
        seen = tl.zeros((PANEL, WEIGHTS), dtype)
        for start in range(first, count, PANEL):
            others = start + panel
            part = tl.load(
                block + mine[:, None] * count + others[None, :],
                mask=(mine < count)[:, None] & (others < count)[None, :],
                other=0.0,
            )
            part *= tl.where(start > first, 2.0, 1.0).to(dtype)  # the mirrored part is left out
            columns = tl.load(
                design + others[:, None] * features + weight[None, :],
                mask=(others < count)[:, None] & (weight < features)[None, :],
                other=0.0,
            )
            seen = tl.dot(part, columns, seen, input_precision="ieee", out_dtype=dtype)
        removed += tl.sum(seen * own, 0)
    place = owner * features + weight
    before = tl.load(variance + place, mask=weight < features, other=0.0)
    moved = tl.load(mean + place, mask=weight < features, other=0.0) + before * pulled
    tl.store(new_mean + place, moved, mask=weight < features)
    tl.store(
        new_variance + place, tl.maximum(before - before * before * removed, 0.0), mask=weight < features
    )


def condition(
    mean: Tensor, variance: Tensor, design: Tensor, dual: Tensor, downdate: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance (C, D) after the batch: see `diagonal.condition`."""
    (classes, features), count = variance.shape, len(design)
    new_mean, new_variance = variance.new_empty(2, classes, features)
    with torch.cuda.device_of(variance):
        condition_kernel[(triton.cdiv(features, WEIGHTS), classes)](
            mean.contiguous(),
            variance.contiguous(),
            design.contiguous(),
            dual.contiguous(),
            downdate.contiguous(),
            new_mean,
            new_variance,
            classes,
            features,
            count,
            WEIGHTS=WEIGHTS,
            PANEL=PANEL,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return new_mean, new_variance
