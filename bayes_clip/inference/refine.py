"""Refinement: what was learned one label at a time is learned again, many labels at once.

A label's site is found under what was known when it came; the first of a stream, and all of a stream that
comes class by class, are found under too little. A refinement sweep takes kept batches out of the belief and
puts them in again, each time as many together as make a batch of 32 rows: a joined batch is one visit of the
belief's covariance, and its labels inform each other. A datum's contribution is replaced, never added again
(expectation propagation with the batch as its unit; Minka 2001, Khan & Lin 2017).

To keep a row costs its inputs and its site: C numbers for the precision and C for the linear term as long as
it came alone, C times the rows of its batch once it is joined. A sweep over N rows costs N / 32 removals and
as many updates: for class_block O(C D² N) operations, and 2 N / 32 readings and writings of the covariance
where a sweep one label at a time takes 2 N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.inference.kalman import KalmanState, Site, StepInfo, put_in, take_out
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import Rule
from bayes_clip.observation import SOFTMAX, Observation
from bayes_clip.progress import track

ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Refined:
    """What a refinement leaves: the state, and the kept batches with their sites, joined as they now are."""

    state: KalmanState
    data: tuple[Batch, ...]
    sites: tuple[Site, ...]
    infos: tuple[StepInfo, ...]  # of the last sweep's batches


def refine(
    state: KalmanState,
    data: Sequence[Batch],
    sites: Sequence[Site],
    rule: Rule,
    observation: Observation = SOFTMAX,
    sweeps: int = 1,
    rows: int = ROWS_AT_ONCE,
) -> Refined:
    """Replace the contribution of all kept batches, `sweeps` times; the model must be static.

    `data` and `sites` are what `kalman.put_in` was given and returned (or an earlier refinement), in one
    order. Consecutive batches are joined while they hold at most `rows` rows together; batches that are
    larger stay as they are.
    """
    parts = groups([len(batch.labels) for batch in data], rows)
    batches = [joined_batch(data[part]) for part in parts]
    kept = [joined_site(sites[part]) for part in parts]
    infos: list[StepInfo] = []
    for sweep in range(sweeps):
        infos = []
        for index, batch in enumerate(track(batches, f"Refining, sweep {sweep + 1} of {sweeps}")):
            cavity = take_out(state, batch, kept[index])
            state, info, kept[index] = put_in(cavity, batch, rule, observation)
            infos.append(info)
    return Refined(state, tuple(batches), tuple(kept), tuple(infos))


def groups(sizes: Sequence[int], rows: int = ROWS_AT_ONCE) -> list[slice]:
    """Consecutive batches of these sizes, joined while they hold at most `rows` rows together."""
    return list(_groups(sizes, rows))


def joined_batch(parts: Sequence[Batch]) -> Batch:
    """One batch of all rows. A part without an offset counts as zero if another part has one."""
    if len(parts) == 1:
        return parts[0]
    design = torch.cat([part.design for part in parts])
    labels = torch.cat([part.labels for part in parts])
    known = next((part.offset for part in parts if part.offset is not None), None)
    if known is None:
        return Batch(design, labels)
    zeros = known.new_zeros(1, known.shape[1])
    offsets = [zeros.expand(len(p.labels), -1) if p.offset is None else p.offset for p in parts]
    return Batch(design, labels, torch.cat(offsets))


def joined_site(parts: Sequence[Site]) -> Site:
    """The product of the sites as one site of all rows: (C, b, b) blocks, or (C b, C b) classes outermost."""
    if len(parts) == 1:
        return parts[0]
    linear = torch.cat([part.linear for part in parts])
    sizes, classes = [len(part.linear) for part in parts], linear.shape[1]
    matrices = [part.matrix for part in parts]
    if matrices[0].ndim == 3:
        return Site(_block_diagonal(matrices, sizes, (classes,)), linear)
    by_class = [
        matrix.reshape(classes, size, classes, size) for matrix, size in zip(matrices, sizes, strict=True)
    ]
    stacked = [matrix.transpose(1, 2) for matrix in by_class]
    whole = _block_diagonal(stacked, sizes, (classes, classes)).transpose(1, 2)
    return Site(whole.reshape(len(linear) * classes, -1), linear)


def _groups(sizes: Sequence[int], rows: int) -> Iterator[slice]:
    start, held = 0, 0
    for index, size in enumerate(sizes):
        if index > start and held + size > rows:
            yield slice(start, index)
            start, held = index, 0
        held += size
    if sizes:
        yield slice(start, len(sizes))


def _block_diagonal(blocks: Sequence[Tensor], sizes: Sequence[int], outer: tuple[int, ...]) -> Tensor:
    """Blocks (*outer, b, b) along the diagonal of (*outer, Σ b, Σ b)."""
    whole = blocks[0].new_zeros(*outer, sum(sizes), sum(sizes))
    start = 0
    for block, size in zip(blocks, sizes, strict=True):
        whole[..., start : start + size, start : start + size] = block
        start += size
    return whole
