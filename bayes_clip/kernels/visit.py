"""One visit of the class-block covariance: what one batch takes away, and what the next one sees of it.

The covariance is by far the largest thing a filter holds. A visit reads it once and writes it once: each
class's block, while it is in the cache, loses a batch's rank-b part and is multiplied by the next design.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from bayes_clip.kernels import compiled

CACHE_BYTES = 2**23  # of covariance blocks between the two products: they stay in the last-level cache


@overload
def visit(covariance: Tensor, left: Tensor | None, right: Tensor | None, design: Tensor) -> Tensor: ...
@overload
def visit(covariance: Tensor, left: Tensor | None, right: Tensor | None, design: None) -> None: ...
@overload
def visit(
    covariance: Tensor, left: Tensor | None, right: Tensor | None, design: Tensor | None
) -> Tensor | None: ...
def visit(
    covariance: Tensor, left: Tensor | None, right: Tensor | None, design: Tensor | None
) -> Tensor | None:
    """P_c ← P_c − left_c right_cᵀ in place, then P_c Φᵀ (C, D, b₂) for the next design.

    `covariance` (C, D, D) is overwritten. `left` and `right` (C, D, b₁) belong to the batch just learned
    (None: there was none), `design` (b₂, D) to the one that follows (None: none does, and None is returned).
    2 C D² (b₁ + b₂) operations.
    """
    if compiled(covariance):
        from bayes_clip.kernels.visit_triton import visit as compiled_visit

        return compiled_visit(covariance, left, right, design)
    classes, features = covariance.shape[:2]
    cross = None if design is None else covariance.new_empty(classes, features, len(design))
    step = max(1, CACHE_BYTES // (features**2 * covariance.element_size()))
    for start in range(0, classes, step):
        part = slice(start, start + step)
        blocks = covariance[part]
        if left is not None and right is not None:
            blocks.baddbmm_(left[part], right[part].mT, alpha=-1)
        if design is not None and cross is not None:
            torch.bmm(blocks, design.mT.expand(len(blocks), -1, -1), out=cross[part])
    return cross
