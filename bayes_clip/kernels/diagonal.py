"""Updates of independent weights (C, D) under a shared design Φ (b, D), without P Φᵀ (C, D, b).

For diagonal covariances v the Gram matrices are G_c[i, j] = Σ_d v_cd φ_id φ_jd, and what a batch removes is
v_cd² Σ_ij φ_id B_c[i, j] φ_jd. Both are symmetric in i and j, which leaves half of the 2 C D b² operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bayes_clip.kernels import compiled

PANEL = 16  # rows that meet themselves and those behind them at a time
CACHED = 2**18  # numbers of a product that a CPU keeps in its caches until they are summed


def gram_blocks(variance: Tensor, design: Tensor) -> Tensor:
    """Gram matrices Φ diag(v_c) Φᵀ (C, b, b) for variances (C, D) and a design (b, D). C D b² operations.

    Products of pairs of rows, which no class enters, times the variances: one matrix product for all classes.
    """
    (classes, features), count = variance.shape, len(design)
    blocks = variance.new_empty(classes, count, count)
    for first in range(0, count, PANEL):
        end = min(first + PANEL, count)
        pairs = (design[first:end, None] * design[None, first:]).view(-1, features)
        panel = (variance @ pairs.mT).view(classes, end - first, count - first)
        blocks[:, first:end, first:] = panel
        blocks[:, end:, first:end] = panel[:, :, end - first :].mT
    return blocks


def condition(
    mean: Tensor, variance: Tensor, design: Tensor, dual: Tensor, downdate: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean m + v Φᵀ a and variance v − diag(v Φᵀ B Φ v), each (C, D) and new.

    `mean` and `variance` (C, D), `design` Φ (b, D), `dual` a (b, C), `downdate` B (C, b, b) symmetric. No
    variance comes out below 0. C D b² operations; B is multiplied with Φ first, since what cancels does so
    there (products of pairs of rows, as in `gram_blocks`, would lose digits).
    """
    if compiled(variance):
        from bayes_clip.kernels.diagonal_triton import condition as compiled_condition

        return compiled_condition(mean, variance, design, dual, downdate)
    removed = torch.zeros_like(variance)
    for first in range(0, len(design), PANEL):
        rows = design[first : first + PANEL]
        weights = 2 * downdate[:, first : first + len(rows), first:]
        weights[:, :, : len(rows)] = downdate[:, first : first + len(rows), first : first + len(rows)]
        at_once = max(1, CACHED // rows.numel())
        for part, into in zip(weights.split(at_once), removed.split(at_once), strict=True):
            seen = (part.reshape(-1, part.shape[-1]) @ design[first:]).view(len(part), *rows.shape)
            into += seen.mul_(rows).sum(1)
    # in exact arithmetic nothing is removed that is not there
    after = torch.addcmul(variance, variance.square(), removed, value=-1).clamp_min_(0)
    return torch.addcmul(mean, variance, dual.mT @ design), after
