"""One label after another, exactly, on the Gram matrices of a block of rows alone.

Learning row i moves what is predicted of the later rows k by gains that are entries of the current Gram
matrix G_c = Φ P_c Φᵀ, so a whole block of b labels needs P_c only twice: for G_c before, and for one rank-b
downdate after. In between stands this recursion:

    a, β from g_c = G_c[i, i], z_i and the label     (the dual and the downdate of one row)
    z_k ← z_k + G_c[k, i] a_c,   G_c[j, k] ← G_c[j, k] − β_c G_c[j, i] G_c[i, k]     for j, k > i

With rows M_c[i, k] = G_c[i, k] as row i met them, L_c = (I + diag(β_c) striu(M_c))⁻¹ collects the rows:
the block's dual is L a and its downdate L diag(β) Lᵀ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax, wrightomega
from torch import Tensor

from bayes_clip.kernels import compiled

PANEL = 8  # rows whose mutual updates are made one by one; those behind them are updated by one product
MOST_STEPS = 60
LAST_STEP = 1e-4  # what is left after it is of third order: about 1e-12
SMALLEST_VARIANCE = 1e-100  # of a logit: log g stays finite, and p = ω/g is exp(u − λ) to the last digit

# predicted variances (C,), predicted logits (C,), row number -> the row's dual (C,) and downdate (C,)
Row = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Recursed:
    """A block of b labels learned one after another; float64."""

    dual: Tensor  # (b, C) a of each row
    weight: Tensor  # (b, C) β of each row
    predicted: Tensor  # (b, C) mean logits of each row just before its label
    variance: Tensor  # (b, C) and their variance: the diagonal of M
    collected: Tensor  # (C, b, b) L, unit upper triangular

    def combined(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Dual (b, C) and downdate (C, b, b) of the block, for the belief that it was projected from.

        The downdate, a sum of squares, is formed in the `dtype` in which it is wanted.
        """
        dual = (self.collected @ self.dual.mT[..., None])[..., 0].mT
        collected = self.collected.to(dtype)
        return dual, (collected * self.weight.mT[:, None, :].to(dtype)) @ collected.mT


def recursion(gram: Tensor, logits: Tensor, labels: Tensor, iterated: bool) -> Recursed:
    """The extended Kalman filter with softmax labels, row by row.

    `gram` (C, b, b) and predicted `logits` (b, C), both float64 before the block; `labels` (b,). Each row is
    linearised at its own mode with the prior fixed (`iterated`), or at its prediction.
    """
    if compiled(gram):
        from bayes_clip.kernels.recursion_triton import recursion as compiled_recursion

        return compiled_recursion(gram, logits, labels, iterated)
    targets = labels.tolist()

    def row(variance: np.ndarray, mean: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        if iterated:
            return mode_of_label(variance, mean, targets[index])
        return plain_step(variance, mean, targets[index])

    return row_by_row(gram, logits, row)


def row_by_row(gram: Tensor, logits: Tensor, row: Row) -> Recursed:
    """The recursion with any update of one row, on the CPU.

    Within a panel of 8 rows step by step; what a panel means for the rows behind it is a product:
    M[S, behind] = L_SSᵀ (what is left of G[S, behind]). O(C b³) operations beside those of `row`.
    """
    count = len(logits)
    rows, inners = torch.zeros_like(gram), []
    means = logits.mT.contiguous().clone()
    dual, weight = torch.empty_like(means), torch.empty_like(means)
    for start in range(0, count, PANEL):
        here, end = slice(start, start + PANEL), min(start + PANEL, count)
        weighted = weight[:, :start, None] * rows[:, :start, here]  # diag(β) M[before, S]
        panel = torch.baddbmm(gram[:, here, start:], weighted.mT, rows[:, :start, start:], alpha=-1)
        own, dual[:, here], weight[:, here], means[:, here], inner = _panel(
            panel[:, :, : end - start], means[:, here], start, row
        )
        rows[:, here, here] = own
        rows[:, here, end:] = inner.mT @ panel[:, :, end - start :]
        means[:, end:] += (dual[:, None, here] @ rows[:, here, end:])[:, 0]
        inners.append(inner)
    variance = rows.diagonal(dim1=1, dim2=2)
    return Recursed(dual.mT, weight.mT, means.mT, variance.mT, _collected(rows, weight, inners))


def _collected(rows: Tensor, weight: Tensor, inners: list[Tensor]) -> Tensor:
    """L (C, b, b) from M (C, b, b), β (C, b) and the panels' own L: pairs of neighbours, pairs of pairs ...

    [[A⁻¹, N], [0, D⁻¹]]⁻¹ = [[A, −A N D], [0, D]] for the part N of diag(β) M that ties the two.
    """
    collected, count, width = torch.zeros_like(rows), rows.shape[-1], PANEL
    for index, inner in enumerate(inners):
        own = slice(index * PANEL, index * PANEL + inner.shape[-1])
        collected[:, own, own] = inner
    while width < count:
        for start in range(0, count - width, 2 * width):
            first, last = slice(start, start + width), slice(start + width, min(start + 2 * width, count))
            tie = weight[:, first, None] * rows[:, first, last]
            cross = collected[:, first, first] @ tie @ collected[:, last, last]
            collected[:, first, last] = cross.neg_()
        width *= 2
    return collected


def _panel(
    gram: Tensor, logits: Tensor, first: int, row: Row
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows M (C, n, n), dual, weight and predicted logits (C, n), and L (C, n, n) of n rows by themselves."""
    g = np.ascontiguousarray(gram.numpy().transpose(1, 2, 0))  # classes innermost: every step is contiguous
    z = np.ascontiguousarray(logits.numpy().T)
    count = len(z)
    dual, weight = np.empty_like(z), np.empty_like(z)
    collected = np.zeros_like(g)
    for i in range(count):
        dual[i], weight[i] = row(g[i, i], z[i], first + i)
        z[i + 1 :] += g[i, i + 1 :] * dual[i]
        gain = weight[i] * g[i, i + 1 :]
        g[i + 1 :, i + 1 :] -= gain[:, None] * g[i, None, i + 1 :]
        g[i, :i] = 0
        collected[i, i] = 1
        collected[: i + 1, i + 1 :] -= collected[: i + 1, i, None] * gain
    back = (2, 0, 1)
    parts = g.transpose(back), dual.T, weight.T, z.T, collected.transpose(back)
    rows, duals, weights, means, inner = (torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
    return rows, duals, weights, means, inner


def mode_of_label(variance: np.ndarray, mean: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Dual y − p and downdate (C,) at the mode of one softmax label under independent N(mean, variance).

    At the mode z = mean + g (y − p) with p = softmax(z), so p_c = ω(log g_c + u_c − λ) / g_c with
    u = mean + g y, the Wright omega function ω and the scalar λ at which Σ p_c = 1. The sum is convex and
    falls in λ, and p_c ≤ 1 says λ ≥ max(u − g): Newton from there rises to the root without overshooting.
    Halley's longer steps are taken back where they overshoot.
    """
    scale = np.maximum(variance, SMALLEST_VARIANCE)
    raised, lowered = np.log(scale) + mean, mean - variance
    raised[label] += variance[label]
    lowered[label] = mean[label]
    shift = safe = float(lowered.max())
    for _ in range(MOST_STEPS):
        omega = wrightomega(raised - shift)
        probabilities = omega / scale
        damped = np.reciprocal(1 + omega)
        falling, squares = probabilities * damped, damped * damped
        excess, slope = float(probabilities.sum()) - 1, float(falling.sum())
        step = newton = excess / slope
        if excess > 0:  # Halley's step, at most twice Newton's
            step /= max(1 - newton * float(falling @ squares) / (2 * slope), 0.5)
        if abs(step) <= LAST_STEP:  # the rest of the way by the series of p to second order
            probabilities *= 1 - step * damped + step**2 / 2 * squares * damped
            break
        if excess > 0:
            shift, safe = shift + step, shift + newton
        else:  # too far: back to where Newton would have gone
            shift = safe
    dual = -probabilities
    dual[label] += 1
    return dual, _downdate(probabilities, variance)


def plain_step(variance: np.ndarray, mean: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Dual (I + R K)⁻¹ (y − p) and downdate (C,) of one softmax label linearised at the prediction."""
    probabilities = softmax(mean)
    residual = -probabilities
    residual[label] += 1
    own = probabilities / (1 + probabilities * variance)
    shift = own * variance * residual
    return residual - shift + own * (shift.sum() / own.sum()), _downdate(probabilities, variance)


def _downdate(probabilities: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Diagonal of (I + R K)⁻¹ R for R = diag(p) − p pᵀ and K = diag(variance), (C,)."""
    own = probabilities / (1 + probabilities * variance)
    return own - own**2 / own.sum()
