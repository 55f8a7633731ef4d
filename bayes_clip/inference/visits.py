"""A run over batches of a static class-block model, with one visit of the covariance for each of them.

What batch k takes away and what batch k + 1 sees of the belief are computed together (`kernels.visit`), in
place: where `kalman.update` reads the covariance twice and writes a new one, a visit reads and writes once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from bayes_clip.gaussian import ClassBlock
from bayes_clip.inference.kalman import KalmanState, StepInfo, conclude, step_info, surprise
from bayes_clip.inference.linearised import Batch, exactly
from bayes_clip.inference.one_by_one import conclude_one_by_one
from bayes_clip.inference.rules import Rule
from bayes_clip.observation import SOFTMAX, Observation


def visits(
    state: KalmanState,
    data: Sequence[Batch],
    rule: Rule,
    observation: Observation = SOFTMAX,
    first: int = 0,
    one_by_one: bool = False,
) -> Iterator[tuple[KalmanState, StepInfo]]:
    """`kalman.update` of the static model over the batches from `first` on: state and info after each.

    The belief must be a `ClassBlock` and the batches linear. The state given is used up, and each state that
    is yielded is good until the next one is asked for. With `one_by_one` the rows of a batch are learned one
    after another, exactly as batches of one would be.
    """
    belief = cast(ClassBlock, state.belief)
    batch = data[first]
    projection = belief.project(batch.design)
    for index in range(first, len(data)):
        start = time.perf_counter()
        if one_by_one:
            seen, change = conclude_one_by_one(state, batch, projection, rule, observation)
        else:
            exact = exactly(projection, batch)
            seen = surprise(exact.gram, exact.logits, batch.labels, observation)
            change = conclude(state, batch, exact, rule, observation)
        following = data[index + 1] if index + 1 < len(data) else None
        moved, ahead = belief.visited(
            projection,
            change.dual.to(belief.mean),
            change.downdate.to(belief.mean),
            None if following is None else following.design,
        )
        info = step_info(batch, belief, moved, seen, change, start)
        steps = state.steps + (len(batch.labels) if one_by_one else 1)
        state, belief = replace(state, belief=moved, steps=steps), moved
        yield state, info
        if following is None or ahead is None:
            return
        batch, projection = following, ahead
