"""A block of labels learned one after another on its Gram matrices, as batches of one would be.

Every row is scored by what was known just before its label, the rows above it included. What the block as a
whole says to the belief (`BatchUpdate`) is exact: the same as b updates, to rounding, at the cost of one.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from bayes_clip.curvature import SoftmaxCurvature
from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import BlockGram
from bayes_clip.gaussian.row_gram import RowGram
from bayes_clip.inference.kalman import KalmanState, Site, StepInfo, Surprise, site_of, step_info, surprise
from bayes_clip.inference.linearised import Batch, conditioned, exact_logits, projected
from bayes_clip.inference.rules import BatchUpdate, Rule, iterated, plain
from bayes_clip.kernels.recursion import Recursed, recursion, row_by_row
from bayes_clip.observation import SOFTMAX, Observation
from bayes_clip.threads import one_thread

CLOSED_FORM = (plain, iterated)  # rules whose update of one softmax label is a scalar equation


def conclude_one_by_one(
    state: KalmanState, batch: Batch, projection: Projection, rule: Rule, observation: Observation
) -> tuple[Surprise, BatchUpdate]:
    """Scores and update of a block whose rows are learned in order; `projection` is the block before."""
    with one_thread():
        seen = cast(BlockGram, projection.gram)
        gram = BlockGram(seen.blocks.double(), known=seen.blocks.dtype)
        logits = exact_logits(projection, batch)
        if observation is SOFTMAX and rule in CLOSED_FORM:
            recursed = recursion(gram.blocks, logits, batch.labels, rule is iterated)
            own, linear, evidence = _softmax_sites(recursed, batch.labels, rule is iterated)
        else:
            recursed, changes = _rows(state, batch, gram, logits, rule, observation)
            own = torch.cat([change.curvature for change in changes])
            linear = torch.cat([change.linear for change in changes])
            evidence = torch.stack([change.log_evidence for change in changes]).sum()
        dual, downdate = recursed.combined(seen.blocks.dtype)
        change = BatchUpdate(
            dual=dual,
            downdate=downdate,
            logits=logits + gram.times(dual),
            curvature=own,
            linear=linear,
            log_evidence=evidence,
            iterations=1,
        )
    rows = RowGram(recursed.variance, known=gram.known)
    return surprise(rows, recursed.predicted, batch.labels, observation), change


def put_in_one_by_one(
    state: KalmanState,
    batch: Batch,
    rule: Rule,
    observation: Observation = SOFTMAX,
    *,
    consume: bool = False,
) -> tuple[KalmanState, StepInfo, Site]:
    """`kalman.put_in` of a block whose rows are learned in order; the site is that of the block."""
    start = time.perf_counter()
    projection, exact = projected(state.belief, batch)
    seen, change = conclude_one_by_one(state, batch, projection, rule, observation)
    moved = conditioned(state.belief, projection, change.dual, change.downdate, consume=consume)
    info = step_info(batch, state.belief, moved, seen, change, start)
    steps = state.steps + len(batch.labels)
    return replace(state, belief=moved, steps=steps), info, site_of(exact, change)


def _softmax_sites(recursed: Recursed, labels: Tensor, at_mode: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Diagonal site precision and linear term (b, C) of each row, and the sum of their log evidences."""
    after = recursed.predicted + recursed.variance * recursed.dual
    probabilities = (after if at_mode else recursed.predicted).softmax(-1)
    own = probabilities * (1 - probabilities)
    fit = SOFTMAX.log_likelihood(after, labels).sum()
    fit = fit - (recursed.dual.square() * recursed.variance).sum() / 2
    determinant = RowGram(recursed.variance).log_determinant(SoftmaxCurvature(probabilities))
    return own, own * after + recursed.dual, fit - determinant / 2


def _rows(
    state: KalmanState, batch: Batch, gram: BlockGram, logits: Tensor, rule: Rule, observation: Observation
) -> tuple[Recursed, list[BatchUpdate]]:
    """The recursion with any rule, called for one row after another."""
    prior = designs.times(batch.design.square(), state.prior_variance).mean(-1).double()
    changes: list[BatchUpdate] = []

    def row(variance: np.ndarray, mean: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
        own = BlockGram(torch.from_numpy(variance.copy())[:, None, None], known=gram.known)
        predicted, labels = torch.from_numpy(mean.copy())[None], batch.labels[index : index + 1]
        change = rule(observation, own, predicted, labels, prior[index])
        changes.append(change)
        return change.dual[0].numpy(), change.downdate[:, 0, 0].numpy()

    return row_by_row(gram.blocks, logits, row), changes
