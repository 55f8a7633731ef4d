"""Case `blocked_filter`: the exact filter that takes labels one after another, in blocks of 64 rows.

The peer is the naive sequential filter: the same update a row at a time, each of which reads and writes the
whole covariance; fewer rows of it are timed and scaled up. Agreement: largest difference of the means after
the rows that both did, relative to the largest change of a mean, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

import bayes_clip as bc
from analysis.benchmarks.contest import Contest, Partly, Size, Work, timed
from analysis.benchmarks.features import clip_like_task
from bayes_clip.gaussian import ClassBlock
from bayes_clip.inference import kalman
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.visits import visits

PRIOR_VARIANCE = 1e-3
BLOCK = 64
NAIVE_ROWS = 8
TOLERANCE = 1e-3
RULE = RULES["iterated"]


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """One contest; both filters take the rows in a random order."""
    task = clip_like_task(size.classes, size.features, size.rows, size.classes)
    prior, rows = problem(task, device)
    mean, few = prior.prior_mean, min(NAIVE_ROWS, size.rows)
    first = Batch(rows.design[:few], rows.labels[:few])

    def naive() -> Partly[Tensor]:
        seconds, found = timed(lambda: one_at_a_time(prior, first), device)
        return Partly(found, seconds * (size.rows / few - 1))

    def agreement(_: Tensor, theirs: Tensor) -> float:
        found = blocked(prior, first, BLOCK)()
        return float((found - theirs).abs().max() / (theirs - mean).abs().max())

    yield Contest(
        case=f"blocked_filter@{size}",
        ours=blocked(prior, rows, BLOCK),
        peers={f"naive sequential (torch {torch.__version__})": naive},
        agreement=agreement,
        tolerance=TOLERANCE,
        work=work(size),
    )


def work(size: Size) -> Work:
    """Two matrix products a block and class, 4 C D² b operations; the covariance read and written once."""
    numbers, blocks = size.classes * size.features**2, -(-size.rows // BLOCK)
    return Work(4 * numbers * size.rows, 2 * 4 * numbers * blocks)


def problem(task: bc.Task, device: torch.device) -> tuple[kalman.KalmanState, Batch]:
    """The prior, and the support rows in a random order."""
    assert task.text_features is not None
    order = torch.randperm(len(task.support_labels), generator=torch.Generator().manual_seed(0))
    design = task.logit_scale * task.support_features[order]
    mean = task.text_features.to(device)
    prior = kalman.init(mean, torch.full_like(mean, PRIOR_VARIANCE), "class_block")
    return prior, Batch(design.to(device), task.support_labels[order].to(device))


def blocked(prior: kalman.KalmanState, rows: Batch, block: int) -> Callable[[], Tensor]:
    """Ours: the mean (C, D) after all rows, in blocks.

    The filter overwrites its covariance. It is given the same memory at every run: filling it with the prior
    is part of the work, asking the system for it is not.
    """
    assert isinstance(prior.belief, ClassBlock)
    belief, covariance = prior.belief, torch.empty_like(prior.belief.covariance)
    parts = zip(rows.design.split(block), rows.labels.split(block), strict=True)
    blocks = [Batch(design, labels) for design, labels in parts]

    @torch.no_grad()
    def way() -> Tensor:
        covariance.copy_(belief.covariance)
        state = replace(prior, belief=replace(belief, covariance=covariance))
        for reached, _ in visits(state, blocks, RULE, one_by_one=True):
            state = reached
        return state.belief.mean

    return way


@torch.no_grad()
def one_at_a_time(state: kalman.KalmanState, rows: Batch) -> Tensor:
    """The naive filter: the mean (C, D) after an update for each row."""
    for design, label in zip(rows.design.split(1), rows.labels.split(1), strict=True):
        state, _ = kalman.update(state, Batch(design, label), RULE)
    return state.belief.mean
