"""From labelled rows to batches, fed to a filter that may have seen others: what fit and update share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, overload

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief, ClassBlock
from bayes_clip.inference.batches import batches, rows_of_gram
from bayes_clip.inference.kalman import StepInfo
from bayes_clip.inference.linearised import AnyBatch
from bayes_clip.inference.one_by_one import CLOSED_FORM
from bayes_clip.inference.program import Program
from bayes_clip.inference.refine import ROWS_AT_ONCE
from bayes_clip.inference.rules import find_rule
from bayes_clip.inference.stream import Course, Cursor, Kept, Stream, check_passes, owned, swept_parts, walk
from bayes_clip.observation import SOFTMAX
from bayes_clip.settings import FitSettings


class Keeper(Protocol):
    """Keeps where a run stands, so that it can go on after an interruption."""

    def cursor(self, beginning: Cursor) -> Cursor:
        """Where to begin: what was kept, else `beginning`."""
        ...

    def reached(self, cursor: Cursor) -> None:
        """Called after every batch."""
        ...


class Batches(Sequence[AnyBatch]):
    """Rows in batches; each is made as the program sees it when it is asked for, from its own rows alone.

    So it does not depend, not even in its last bit, on what other rows are fed with it.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, sizes: Sequence[int], program: Program) -> None:
        self._rows = list(zip(inputs.split(list(sizes)), labels.split(list(sizes)), strict=True))
        self._program = program

    @overload
    def __getitem__(self, index: int) -> AnyBatch: ...
    @overload
    def __getitem__(self, index: slice) -> list[AnyBatch]: ...
    def __getitem__(self, index: int | slice) -> AnyBatch | list[AnyBatch]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self._program.batch(*self._rows[index])

    def __len__(self) -> int:
        return len(self._rows)


def feed(
    belief: Belief,
    stream: Stream,
    inputs: Tensor,
    labels: Tensor,
    settings: FitSettings,
    *,
    classes: int,
    program: Program,
    keeper: Keeper | None = None,
    consume: bool = False,
) -> tuple[Belief, Stream, list[StepInfo]]:
    """Add N labelled rows to what the filter knows: inputs (N, F), labels (N,).

    Order, batch size, passes, rule and dynamics are those of `settings`. The first pass feeds the new rows;
    further passes sweep over the kept ones as well. With one pass and nothing kept, the cost depends on the
    new rows alone. `consume`: the belief is used up, its covariance may be overwritten. Batches of one row
    are learned in blocks, one row after another (`rows_at_once`).

    Returns the belief, what it takes to go on, and the infos of the batches fed here in the last pass (after
    an interruption, of those since).

    Raises:
        UserError: options that exclude each other.
    """
    order = batches(labels, classes, settings.order, settings.batch_size, settings.seed, settings.family)
    picked, known = torch.cat(order).to(inputs.device), stream.kept
    at_once = rows_at_once(settings, belief, program, inputs.device)
    sizes = [len(rows) for rows in (order if at_once == 1 else picked.split(at_once))]
    inputs, labels = inputs[picked], labels[picked]
    if known is not None:
        inputs, labels = torch.cat([known.inputs, inputs]), torch.cat([known.labels, labels])
        sizes = [*known.sizes, *sizes]
    course = Course(
        data=Batches(inputs, labels, sizes, program),
        rule=find_rule(settings.update_rule),
        state_space=settings.state_space.for_sites(program.sizes, program.prior_mean),
        observation=program.observation,
        passes=settings.passes,
        known=0 if known is None else len(known.sizes),
        keeps_sites=known is not None,
        one_by_one=at_once > 1,
        consume=True,
    )
    check_passes(course, stream.state(belief))  # before the keeper writes anything
    belief = belief if consume else owned(belief)
    beginning = Cursor(stream.state(belief), () if known is None else known.sites)
    cursor = beginning if keeper is None else keeper.cursor(beginning)
    infos: list[StepInfo] = []
    for reached, info in walk(course, cursor):
        if reached.sweep > cursor.sweep:
            infos = []
        infos.append(info.summary())
        cursor = reached
        if keeper is not None:
            keeper.reached(cursor)
    if settings.passes > 1:
        sizes = [sum(sizes[part]) for part in swept_parts(sizes, cursor.sites[0])]
    kept = Kept(inputs, labels, tuple(sizes), cursor.sites) if course.keeps else None
    stream = replace(stream, steps=cursor.state.steps, kept=kept, noise=cursor.state.noise)
    return cursor.state.belief, stream, infos


def rows_at_once(settings: FitSettings, belief: Belief, program: Program, device: torch.device) -> int:
    """Rows whose labels are learned one after another in one visit of the covariance; 1: there are no blocks.

    Blocks are for batches of one row under class blocks that stand still between them. On CUDA they take the
    rules whose rows have a closed form; with several passes they are as large as later sweeps join.
    """
    on_device = device.type == "cpu" or (
        find_rule(settings.update_rule) in CLOSED_FORM and program.observation is SOFTMAX
    )
    still = isinstance(belief, ClassBlock) and settings.state_space.is_static
    if settings.batch_size != 1 or not still or not on_device:
        return 1
    most = settings.block_rows if settings.passes == 1 else min(settings.block_rows, ROWS_AT_ONCE)
    return min(most, rows_of_gram(len(belief.mean)))
