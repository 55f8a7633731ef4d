"""Variances xᵀ M x of many rows: under many symmetric matrices, by half of each; under diagonal ones."""

from __future__ import annotations

import torch
from torch import Tensor

from bayes_clip.gaussian.design import times
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within

PANEL = 128  # columns of a product: wide enough for the full rate of matrix products
PANELS = 8  # at most: the halves of the rows that are made ready take (panels + 1) / 2 times their memory
FEW_ROWS = 128  # below which reading the matrices is all that counts, and panels only break it up
CACHED = 2**18  # numbers of a product that a CPU keeps in its caches until they are summed


def quadratic_forms(rows: Tensor, matrices: Tensor, budget: int = WORKING_BYTES) -> Tensor:
    """xₙᵀ M_c xₙ (N, C) for rows (N, D) and symmetric matrices (C, D, D).

    With the columns cut into k panels, x M x = 2 Σ_i (½ x_i, x_{>i}) M_{≥i,i} · x_i: only the lower triangle
    of M is read, block by block, and N D² (k + 1)/k of the 2 N D² operations are left (k = 4 at D = 512; 1
    for few rows).
    `matrices` may be a view into something larger. Exact up to rounding.
    """
    features = rows.shape[1]
    width = features if len(rows) < FEW_ROWS else min(features, max(PANEL, -(-features // PANELS)))
    panels = -(-features // width)
    row_numbers = features * (panels + 3) // 2 + 2 * width
    at_once = rows_within(budget, row_numbers * rows.element_size())
    if rows.device.type == "cpu":
        at_once = min(at_once, max(1, CACHED // width))
    result = rows.new_empty(len(rows), len(matrices))
    for part, into in zip(rows.split(at_once), result.split(at_once), strict=True):
        ready = _panels(part, width)
        for column, matrix in enumerate(matrices):
            into[:, column] = _quadratic_form(ready, matrix)
    return result


def diagonal_moments(
    design: Tensor, mean: Tensor, variance: Tensor, budget: int = WORKING_BYTES
) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of the logits of N design rows under independent weights."""
    at_once = rows_within(budget, design[:1].numel() * design.element_size())
    return by_rows(lambda rows: (times(rows, mean), times(rows.square(), variance)), design, at_once)


def _panels(rows: Tensor, width: int) -> list[tuple[int, Tensor, Tensor]]:
    """For each panel: its first column, (½ x_i, x_{>i}) (n, D − first) and 2 x_i (n, width)."""
    ready = []
    for first in range(0, rows.shape[1], width):
        below = rows[:, first:].clone()
        below[:, :width] /= 2
        ready.append((first, below, 2 * rows[:, first : first + width]))
    return ready


def _quadratic_form(ready: list[tuple[int, Tensor, Tensor]], matrix: Tensor) -> Tensor:
    total = torch.zeros_like(ready[0][2][:, 0])
    for first, below, own in ready:
        total += (below @ matrix[first:, first : first + own.shape[1]]).mul_(own).sum(-1)
    return total
