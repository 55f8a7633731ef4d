"""The loop that feeds a filter, one batch after another, and where it stands: it can stop and go on anywhere.

A second pass replaces each batch's contribution (its site is taken out before it is put in again, as in
expectation propagation), so no datum counts twice; small batches are joined for it (`refine`). A later run
may sweep over the batches of an earlier one if their sites were kept (`Kept`). What a run leaves behind
depends on the state, the sites and the batches alone, to the last bit, wherever it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES, Belief, ClassBlock, Full
from bayes_clip.gaussian.cost import largest_batch
from bayes_clip.inference import kalman_clip, natural_gradient
from bayes_clip.inference.kalman import STATIC, KalmanState, Site, StepInfo, put_in, take_out, update
from bayes_clip.inference.linearised import AnyBatch, Batch, CurvedBatch
from bayes_clip.inference.one_by_one import put_in_one_by_one
from bayes_clip.inference.refine import ROWS_AT_ONCE, groups, joined_batch, joined_site
from bayes_clip.inference.rules import OTHER_RULES, Rule
from bayes_clip.inference.visits import visits
from bayes_clip.observation import SOFTMAX, Observation
from bayes_clip.progress import track
from bayes_clip.state_space import Dynamics, StateSpace

Tensors = TypeVar("Tensors", bound=Any)
OWN_UPDATES = {  # rules whose steps are no function of a batch's logits and their Gram
    OTHER_RULES[kalman_clip.NAME]: kalman_clip.update,
    OTHER_RULES[natural_gradient.NAME]: natural_gradient.update,
}


@dataclass(frozen=True)
class Kept:
    """Labelled rows that later passes sweep again: N rows in B batches, and what each batch said."""

    inputs: Tensor  # (N, F) in the order in which they were fed
    labels: Tensor  # (N,)
    sizes: tuple[int, ...]  # rows of each batch, length B
    sites: tuple[Site, ...]  # length B


@dataclass(frozen=True)
class Stream:
    """What a posterior carries, beside its belief, so that labels can be added to it."""

    prior_mean: Tensor  # the shape of the belief's mean
    prior_variance: Tensor  # the same
    steps: int  # batches seen: before each but the very first one, time passes
    kept: Kept | None = None  # None for a one-pass rule, whose updates all cost the same
    updates: int = 0  # since the fit: more labels, or other classes
    noise: Tensor | None = None  # () learned on the way, where the rule does so

    def state(self, belief: Belief) -> KalmanState:
        """The filter's state."""
        return KalmanState(belief, self.prior_mean, self.prior_variance, self.steps, self.noise)


@dataclass(frozen=True)
class Course:
    """What a run feeds, and how."""

    data: Sequence[AnyBatch]
    rule: Rule
    state_space: StateSpace | Dynamics = STATIC
    observation: Observation = SOFTMAX
    passes: int = 1
    known: int = 0  # batches at the beginning of `data` that the belief knows: the first pass leaves them out
    keeps_sites: bool = False
    one_by_one: bool = False  # the first pass learns the rows of a batch one after another
    consume: bool = False  # the state to begin with is used up, and each one that is yielded by the next step

    @property
    def keeps(self) -> bool:
        """Whether what each batch says is kept: asked for, or needed to sweep again."""
        return self.keeps_sites or self.passes > 1 or self.known > 0


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: the state, the sites of the batches so far, and the batch that comes next."""

    state: KalmanState
    sites: tuple[Site, ...] = ()
    sweep: int = 0
    index: int = 0


def walk(course: Course, cursor: Cursor) -> Iterator[tuple[Cursor, StepInfo]]:
    """Feed the batches from `cursor` on; yields where the run stands after each, and its info.

    The first pass feeds the batches from `known` on, each further one all of them, joined as `swept_parts`
    says. With `consume` a run works in one copy of the covariance: look at a state before the next step.

    Raises:
        UserError: more than one pass, or sites to keep, with a dynamic state space or a covariance that keeps
            too little to take a batch out again.
    """
    check_passes(course, cursor.state)
    for sweep in range(cursor.sweep, course.passes):
        first = max(cursor.index, course.known if sweep == 0 else 0)
        parts = [slice(index, index + 1) for index in range(len(course.data))]
        if sweep > 0:
            parts = swept_parts([len(batch.labels) for batch in course.data], cursor.sites[0])
            if len(cursor.sites) > len(parts):  # as the first pass left them
                cursor = replace(cursor, sites=tuple(joined_site(cursor.sites[part]) for part in parts))
        count = f", pass {sweep + 1} of {course.passes}" if course.passes > 1 else ""
        steps = _swept(course, cursor, parts, first) if course.keeps else _fed(course, cursor, first)
        for reached, info in track(steps, f"Filtering{count}", len(parts) - first):
            cursor = reached
            yield cursor, info
        cursor = replace(cursor, sweep=sweep + 1, index=0)


def run(
    state: KalmanState,
    data: Sequence[AnyBatch],
    rule: Rule,
    state_space: StateSpace | Dynamics = STATIC,
    passes: int = 1,
    observation: Observation = SOFTMAX,
) -> tuple[KalmanState, list[StepInfo]]:
    """Feed the batches in order; each further pass replaces every batch's contribution in turn.

    Returns the last state and the infos of the last pass; the state given stays as it is. Refusals as in
    `walk`.
    """
    course = Course(data, rule, state_space, observation, passes, consume=True)
    cursor, infos = Cursor(replace(state, belief=owned(state.belief))), []
    for reached, info in walk(course, cursor):
        cursor = reached
        if cursor.sweep == passes - 1:
            infos.append(info)
    return cursor.state, infos


def owned(belief: Belief) -> Belief:
    """A copy of what a consuming run overwrites."""
    if isinstance(belief, ClassBlock):
        return replace(belief, covariance=belief.covariance.clone())
    return belief


def swept_parts(sizes: Sequence[int], site: Site) -> list[slice]:
    """How passes after the first take batches of these sizes: consecutive ones joined up to 32 rows.

    Fewer where the belief sees all logits of a batch jointly, which one of its sites tells.
    """
    most = largest_batch("full", site.linear.shape[1]) if site.matrix.ndim == 2 else None
    return groups(sizes, min(ROWS_AT_ONCE, most or ROWS_AT_ONCE))


def check_passes(course: Course, state: KalmanState) -> None:
    """Refuse passes that the state space or the covariance cannot follow.

    Raises:
        UserError: says which option excludes which.
    """
    if course.passes < 1:
        raise UserError(f"--passes {course.passes}: must be at least 1")
    if course.keeps and not course.state_space.is_static:
        raise UserError("--passes above 1 with --decay or --process-noise: a drifting stream is seen once")
    if course.passes > 1 and course.rule in OWN_UPDATES:
        name = next(name for name, rule in OTHER_RULES.items() if rule is course.rule)
        raise UserError(
            f"--passes above 1 with --rule {name}: what a batch said to it cannot be taken out again; leave "
            "--passes out, or use --rule expected"
        )
    if course.keeps and not isinstance(state.belief, ClassBlock | Full):
        name = next(name for name, kind in FAMILIES.items() if isinstance(state.belief, kind))
        raise UserError(
            f"--passes above 1 with --covariance {name}: it keeps too little to take a batch out again; "
            "use class_block or full"
        )


def canonical(tensors: Tensors) -> Tensors:
    """The same numbers, laid out in memory as a file would give them back.

    Matrix products may round otherwise where memory is laid out otherwise; a run that goes on from a file
    must not be told from one that was never interrupted.
    """
    plain = {field.name: getattr(tensors, field.name) for field in fields(tensors)}
    moved = {name: _plain(value) for name, value in plain.items() if isinstance(value, Tensor)}
    return replace(tensors, **moved)


def _fed(course: Course, cursor: Cursor, first: int) -> Iterator[tuple[Cursor, StepInfo]]:
    """One pass that keeps nothing but the belief."""
    static = course.state_space.is_static and isinstance(cursor.state.belief, ClassBlock)
    linear = first < len(course.data) and isinstance(course.data[first], Batch)
    if course.consume and static and linear and course.rule not in OWN_UPDATES:
        data = cast(Sequence[Batch], course.data)
        rest = visits(cursor.state, data, course.rule, course.observation, first, course.one_by_one)
        for index, (state, info) in enumerate(rest, start=first):
            yield Cursor(state, (), cursor.sweep, index + 1), info
        return
    state = cursor.state
    for index in range(first, len(course.data)):
        batch = course.data[index]
        if course.rule in OWN_UPDATES:
            own = OWN_UPDATES[course.rule]
            state, info = own(state, _linear(batch), course.state_space, course.observation)
        else:
            space, observation = course.state_space, course.observation
            state, info = update(state, batch, course.rule, space, observation, consume=course.consume)
        state = replace(state, belief=canonical(state.belief))
        yield Cursor(state, (), cursor.sweep, index + 1), info


def _swept(
    course: Course, cursor: Cursor, parts: Sequence[slice], first: int
) -> Iterator[tuple[Cursor, StepInfo]]:
    """One pass that takes out what each batch said, where it has spoken, and puts it in again."""
    state, sites, consume = cursor.state, cursor.sites, course.consume
    for index in range(first, len(parts)):
        batch = joined_batch([_linear(batch) for batch in course.data[parts[index]]])
        if index < len(sites):
            state, consume = take_out(state, batch, sites[index], consume=consume), True
        put = put_in_one_by_one if course.one_by_one and cursor.sweep == 0 else put_in
        state, info, site = put(state, batch, course.rule, course.observation, consume=consume)
        state, consume = replace(state, belief=canonical(state.belief)), course.consume
        sites = (*sites[:index], canonical(site), *sites[index + 1 :])
        yield Cursor(state, sites, cursor.sweep, index + 1), info


def _linear(batch: AnyBatch) -> Batch:
    if isinstance(batch, CurvedBatch):
        raise UserError(
            "--passes above 1 or --rule kalman_clip or natural_gradient with logits that are not linear in "
            "the weights: use one pass and another rule"
        )
    return batch


def _plain(tensor: Tensor) -> Tensor:
    if tensor.stride() == torch.empty(tensor.shape, device="meta").stride():
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)
