"""`recursion` on CUDA: panels of eight rows, with one launch over the classes and one over the labels each.

The softmax couples all classes at every row, so one program owns the sequential part; it is kept small.
`advance_kernel`, a program per class, brings a panel up to date with all rows before it. `panel_kernel`, one
program, then goes through the eight rows and touches only the 8 × 8 corner of every class. Nothing waits for
the host: 2 ⌈b / 8⌉ launches per block, which a CUDA graph may hold.

Per block about C b³ / 3 operations for the rows and 100 C b for the modes; of the Gram matrices, the upper
half is read once and written twice, and b³ / 48 numbers per class are read again from the second-level cache
(`roofline.recursion` counts them). All in the dtype of the Gram matrix.
"""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bayes_clip.kernels.recursion import Recursed

PANEL = 8
CLASSES_AT_ONCE = 1024  # whose corners of a panel are in registers together
MOST_STEPS = 60


@triton.jit(do_not_specialize=["start"])
def advance_kernel(
    gram,
    logits,
    rows,
    predicted,
    dual,
    weight,
    count,
    classes,
    start,
    PANEL: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Program: class. Finishes the panel before `start`, and gives the one from `start` on what all rows
    before it leave: `rows` M (C, b, b) from `gram` (C, b, b), `predicted` (b, C) from `logits` (b, C)."""
    owner = tl.program_id(0).to(tl.int64)
    own = rows + owner * count * count
    panel = tl.arange(0, PANEL)
    column = tl.arange(0, WIDTH)
    beyond = (column >= start) & (column < count)
    if start > 0:
        last = start - PANEL
        place = own + (last + panel)[:, None] * count + column[None, :]
        block = tl.load(place, mask=(panel >= 0)[:, None] & beyond[None, :], other=0.0)
        for j in tl.static_range(PANEL - 1):
            row = tl.sum(tl.where((panel == j)[:, None], block, 0.0), 0)
            seen = tl.load(own + (last + j) * count + last + panel, mask=panel > j, other=0.0)
            block -= (tl.load(weight + (last + j) * classes + owner) * seen)[:, None] * row[None, :]
        tl.store(place, block, mask=(panel >= 0)[:, None] & beyond[None, :])
        tl.debug_barrier()  # the rows just stored are read below by other threads
    mine = start + panel
    inside = (mine < count)[:, None] & beyond[None, :]
    place = mine[:, None] * count + column[None, :]
    block = tl.load(gram + owner * count * count + place, mask=inside, other=0.0)
    mean = tl.load(logits + mine * classes + owner, mask=mine < count, other=0.0)
    for first in range(0, start, PANEL):
        for j in tl.static_range(PANEL):
            row = tl.load(own + (first + j) * count + column, mask=beyond, other=0.0)
            seen = tl.load(own + (first + j) * count + mine, mask=mine < count, other=0.0)
            block -= (tl.load(weight + (first + j) * classes + owner) * seen)[:, None] * row[None, :]
            mean += tl.load(dual + (first + j) * classes + owner) * seen
    tl.store(own + place, block, mask=inside & (column[None, :] >= mine[:, None]))
    tl.store(predicted + mine * classes + owner, mean, mask=mine < count)


@triton.jit(do_not_specialize=["start"])
def panel_kernel(
    rows,
    predicted,
    dual,
    weight,
    labels,
    count,
    classes,
    start,
    ITERATED: tl.constexpr,
    PANEL: tl.constexpr,
    CLASSES: tl.constexpr,
    AT_ONCE: tl.constexpr,
    MOST_STEPS: tl.constexpr,
):
    """One program: the rows `start` to `start` + PANEL one after another; arrays as in `advance_kernel`."""
    panel = tl.arange(0, PANEL)
    label = tl.arange(0, CLASSES)
    real = label < classes
    for i in range(start, tl.minimum(start + PANEL, count)):
        for first in range(0, classes, AT_ONCE):
            some = first + tl.arange(0, AT_ONCE)
            own = rows + some.to(tl.int64) * count * count
            corner = own[:, None] + (start + panel)[None, :]
            inside = (some < classes)[:, None] & (start + panel < count)[None, :]
            ahead = inside & (start + panel >= i)[None, :]
            block = tl.load(corner + i * count, mask=ahead, other=0.0)
            mean = tl.load(predicted + i * classes + some, mask=some < classes, other=0.0)
            for j in range(start, i):
                seen = tl.load(own + j * count + i, mask=some < classes, other=0.0)
                gain = tl.load(weight + j * classes + some, mask=some < classes, other=0.0) * seen
                block -= gain[:, None] * tl.load(corner + j * count, mask=ahead, other=0.0)
                mean += tl.load(dual + j * classes + some, mask=some < classes, other=0.0) * seen
            tl.store(corner + i * count, block, mask=ahead)
            tl.store(predicted + i * classes + some, mean, mask=some < classes)
        tl.debug_barrier()  # what follows reads all classes as this loop left them
        mean = tl.load(predicted + i * classes + label, mask=real, other=0.0)
        own = rows + label.to(tl.int64) * count * count
        variance = tl.maximum(tl.load(own + i * count + i, mask=real, other=0.0), 0.0)
        target = tl.where(label == tl.load(labels + i), 1.0, 0.0).to(mean.dtype)
        if ITERATED:
            probabilities = mode(mean, variance, target, real, MOST_STEPS)
            step = target - probabilities
            shrunk = probabilities / (1 + probabilities * variance)
        else:
            top = tl.max(tl.where(real, mean, float("-inf")), 0)
            probabilities = tl.where(real, tl.exp(tl.minimum(mean - top, 0.0)), 0.0)
            probabilities /= tl.sum(probabilities, 0)
            shrunk = probabilities / (1 + probabilities * variance)
            residual = target - probabilities
            shift = shrunk * variance * residual
            step = residual - shift + shrunk * (tl.sum(shift, 0) / tl.sum(shrunk, 0))
        tl.store(dual + i * classes + label, step, mask=real)
        tl.store(weight + i * classes + label, shrunk - shrunk * shrunk / tl.sum(shrunk, 0), mask=real)
        tl.debug_barrier()


@triton.jit
def mode(mean, variance, target, real, MOST_STEPS: tl.constexpr):
    """Probabilities at the mode of one softmax label under independent N(mean, variance), without a search.

    At the mode z = mean + g (y − p) with p = softmax(z), so log p_c + g_c p_c = u_c − λ with u = mean + g y,
    and λ is where S = Σ p_c reaches 1. S is convex and falls with dp/dλ = −p/(1 + g p), so Newton's step from
    S ≥ 1 ends at or before the root; so does log S, since |d log S/dλ| ≤ 1. At λ = max(u − g) the class of
    the maximum has p = 1, hence S ≥ 1. The larger of the two steps from there rises to the root and leaves at
    most half the square of the distance before it (p'' ≤ |p'|, which falls).
    """
    double: tl.constexpr = mean.dtype == tl.float64
    enough: tl.constexpr = 1e-8 if double else 1e-4
    raised = tl.where(real, mean + variance * target, float("-inf"))
    level = tl.where(real, raised - tl.max(raised - variance, 0), -1e4)
    log_variance = tl.log(tl.maximum(variance, 1e-300 if double else 1e-37))
    risen = tl.sum(target, 0) - 1  # nought, as a scalar in the dtype of the logits
    step = risen + 1
    steps = 0
    while (step > enough) & (steps < MOST_STEPS):
        probabilities = wright(level - risen, variance, log_variance)
        total = tl.sum(probabilities, 0)
        slope = tl.sum(probabilities / (1 + variance * probabilities), 0)
        step = tl.maximum(tl.log(total), (total - 1) / slope)
        risen += step
        steps += 1
    return wright(level - risen, variance, log_variance)


@triton.jit
def wright(level, variance, log_variance):
    """p with log p + g p = s: ω(log g + s)/g with the Wright omega function ω.

    Winitzki's approximation of ω (2 % at most; eˣ (1 − eˣ) far below 0) and one step of Fritsch, Shafer &
    Crowley (1973, algorithm 443) per eight digits, for p itself so that nothing cancels where g is small.
    """
    double: tl.constexpr = level.dtype == tl.float64
    at = log_variance + level
    plain = tl.exp(tl.minimum(level, 1.0))  # p where g = 0
    negligible = at < (-38.0 if double else -18.0)  # g p against 1
    bent = tl.maximum(at, 0.0) + tl.log(1 + tl.exp(-tl.abs(at)))
    omega = bent * (1 - tl.log(1 + bent) / (2 + bent))
    found = tl.where(at < -4.0, plain * (1 - tl.exp(tl.minimum(at, 0.0))), omega / tl.exp(log_variance))
    found, solved = tl.where(negligible, 1.0, found), tl.where(negligible, variance, level)
    for _ in tl.static_range(2 if double else 1):
        product = variance * found
        residual = solved - product - tl.log(found)
        above = 1 + product
        scale = 2 * above * (above + residual * (2 / 3))
        found *= 1 + residual / above * (scale - residual) / (scale - 2 * residual)
    return tl.where(negligible, plain, found)


def recursion(gram: Tensor, logits: Tensor, labels: Tensor, iterated: bool) -> Recursed:
    """The filter with softmax labels row by row, on the Gram matrices: see `recursion.recursion`."""
    classes, count = gram.shape[:2]
    gram, logits, labels = gram.contiguous(), logits.contiguous(), labels.contiguous()
    rows, predicted = torch.zeros_like(gram), torch.empty_like(logits)
    dual, weight = torch.empty_like(logits), torch.empty_like(logits)
    width = triton.next_power_of_2(max(count, PANEL))
    padded = triton.next_power_of_2(classes)
    with torch.cuda.device_of(gram):
        for start in range(0, count, PANEL):
            advance_kernel[(classes,)](
                gram,
                logits,
                rows,
                predicted,
                dual,
                weight,
                count,
                classes,
                start,
                PANEL=PANEL,
                WIDTH=width,
                num_warps=1 if width <= 64 else 2,
                enable_fp_fusion=True,
            )
            panel_kernel[(1,)](
                rows,
                predicted,
                dual,
                weight,
                labels,
                count,
                classes,
                start,
                ITERATED=iterated,
                PANEL=PANEL,
                CLASSES=padded,
                AT_ONCE=min(padded, CLASSES_AT_ONCE),
                MOST_STEPS=MOST_STEPS,
                num_warps=max(1, min(32, padded // 32)),
                enable_fp_fusion=True,
            )
    return Recursed(
        dual=dual,
        weight=weight,
        predicted=predicted,
        variance=rows.diagonal(dim1=1, dim2=2).mT,
        collected=_collected(weight, rows),
    )


def _collected(weight: Tensor, rows: Tensor) -> Tensor:
    """L = (I + diag(β) striu(M))⁻¹, (C, b, b), from β (b, C) and the upper triangular M (C, b, b)."""
    identity = torch.eye(len(weight), dtype=rows.dtype, device=rows.device).expand_as(rows)
    system = weight.mT[..., None] * rows
    return torch.linalg.solve_triangular(system, identity, upper=True, unitriangular=True)
