"""Batches as a filter sees them: labelled rows whose logits are affine in the weights, or are made so.

A program whose logits are not linear is linearised at the mode of the batch: Gauss-Newton steps with line
search, the prior fixed (the iterated extended Kalman update of Bell & Cathey 1993, as Gauss-Newton). Then the
update rule works on affine logits as for any other batch, and no datum counts twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief, ClassBlock
from bayes_clip.gaussian.belief import Projection
from bayes_clip.inference.rules import iterated
from bayes_clip.observation import Observation

MOST_RELINEARISATIONS = 100
RELATIVE_STEP = 1e-10  # of the logits, below which the linearisation stands
# nats by which a float32 step must raise the log joint density for another to follow: 1e-4 are 0.014
# posterior deviations, and what float32 logits can tell
SMALLEST_GAIN = 1e-4


@dataclass(frozen=True)
class Batch:
    """b labelled rows: logits are `offset` + H w; offset (b, C), none is zero."""

    design: Tensor  # H: (b, D) for a linear head, else a Jacobian (b, C, P)
    labels: Tensor  # (b,), or (b, C) for observations of several outputs
    offset: Tensor | None = None  # (b, C)


@dataclass(frozen=True)
class CurvedBatch:
    """b labelled rows of a program whose logits are not linear in the weights."""

    logits: Callable[[Tensor], Tensor]  # weights (P,) -> (b, C)
    linearise: Callable[[Tensor], tuple[Tensor, Tensor | None]]  # weights (P,) -> Jacobian and offset there
    labels: Tensor

    def at(self, weights: Tensor) -> Batch:
        """The batch with its logits linearised at `weights` (P,)."""
        design, offset = self.linearise(weights)
        return Batch(design, self.labels, offset)


AnyBatch = Batch | CurvedBatch


def projected(belief: Belief, batch: Batch) -> tuple[Projection, Projection]:
    """The batch seen through the belief, and the same with logits and Gram in float64.

    The small systems are solved in float64 whatever the belief's precision: they decide the sites.
    """
    projection = belief.project(batch.design)
    return projection, exactly(projection, batch)


def exactly(projection: Projection, batch: Batch) -> Projection:
    """The projection of a batch with logits, its own offset included, and Gram in float64."""
    return replace(projection, gram=projection.gram.double(), logits=exact_logits(projection, batch))


def exact_logits(projection: Projection, batch: Batch) -> Tensor:
    """The predicted logits (b, C) of a batch, its own offset included, in float64."""
    logits = projection.logits.double()
    return logits if batch.offset is None else logits + batch.offset.double()


def conditioned(
    belief: Belief, projection: Projection, dual: Tensor, downdate: Tensor, *, consume: bool = False
) -> Belief:
    """`Belief.condition` with what the float64 systems said, in the belief's own precision.

    `consume`: the belief is used up, its covariance may be overwritten.
    """
    dual, downdate = dual.to(projection.design), downdate.to(projection.design)
    if consume and isinstance(belief, ClassBlock):
        return belief.visited(projection, dual, downdate, None)[0]
    return belief.condition(projection, dual, downdate)


def at_mode(belief: Belief, batch: CurvedBatch, observation: Observation) -> Batch:
    """The batch linearised at its mode under `belief`, to rounding or for 100 steps.

    Each step solves the linearised batch for its mode and goes there, or as far as the true log joint density
    does not fall. The prior's part of it, ½ uᵀ P⁻¹ u for a deviation u = P Hᵀ a, is followed without P⁻¹: it
    is quadratic along the step.
    """
    at, deviation, square = belief.mean, torch.zeros_like(belief.mean), 0.0
    here = batch.logits(at).double()
    value = float(observation.log_likelihood(here, batch.labels).sum())
    in_double = at.dtype == torch.float64
    for _ in range(MOST_RELINEARISATIONS):
        seen = batch.at(at)
        projection, exact = projected(belief, seen)
        change = iterated(observation, exact.gram, exact.logits, batch.labels, exact.logits.new_ones(()))
        dual = change.dual.to(projection.design)
        goal = belief.condition(projection, dual, torch.zeros_like(change.downdate).to(dual)).mean
        step = goal - belief.mean - deviation
        # quadratic forms of the prior precision in the two ends of the step, and between them
        reached = torch.einsum("bc,bcp,p->", dual, seen.design, deviation)
        ends = square, float(reached), float((change.dual * exact.gram.times(change.dual)).sum())
        length = 1.0
        while True:
            trial = belief.mean + deviation + length * step
            near = 1 - length
            beyond = near**2 * ends[0] + 2 * near * length * ends[1] + length**2 * ends[2]
            logits = batch.logits(trial).double()
            objective = float(observation.log_likelihood(logits, batch.labels).sum()) - beyond / 2
            if objective >= value - 1e-13 * abs(value) or length < 1e-6:
                break
            length /= 2
        moved, gain = (logits - here).abs().max(), objective - value
        at, deviation, square, value, here = trial, deviation + length * step, beyond, objective, logits
        if moved <= RELATIVE_STEP ** (1.0 if in_double else 0.5) * logits.abs().max():
            break
        if not in_double and gain < SMALLEST_GAIN:
            break
    return batch.at(at)
