"""Learners of a stream of labels, on one linear head: Kalman filters, and gradient descent of three kinds.

All start at zero-shot CLIP, see the batches in one order and keep weights W (C, D) for logits s X Wᵀ. Each
has one number to choose on a grid over four decades: the filters their prior variance (five values), descent
its learning rate (nine, as it needs a finer choice). Grids do not depend on the logit scale s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import bayes_clip as bc
from bayes_clip.inference import kalman
from bayes_clip.inference.batches import batches
from bayes_clip.inference.rules import RULES
from bayes_clip.predictive import closed_form

MOMENTUM = 0.9
DECAY = 1e-2  # torch's default for AdamW
REPLAYED_STEPS = 20  # on all labels so far, at each batch


@dataclass(frozen=True)
class Stream:
    """The support set of a task in batches of one shot of every class, and its query set."""

    design: tuple[Tensor, ...]  # s X, (b, D) each
    labels: tuple[Tensor, ...]  # (b,)
    queries: Tensor  # s X, (M, D)
    answers: Tensor  # (M,)
    start: Tensor  # zero-shot weights (C, D)
    scale: float  # s


@dataclass(frozen=True)
class Told:
    """What a learner knows after a batch: the mean of the weights, and how to predict with it."""

    predict: Callable[[Tensor], Tensor]  # s X -> log probabilities (N, C) at the mean
    averaged: Callable[[Tensor], Tensor] | None  # over the covariance, where there is one


def stream_of(task: bc.Task, seed: int) -> Stream:
    """The stream of a task, in the order that `seed` gives."""
    assert task.text_features is not None, "the study starts from zero-shot CLIP"
    design = task.logit_scale * task.support_features
    parts = batches(task.support_labels, task.num_classes, "balanced", task.num_classes, seed)
    return Stream(
        tuple(design[part] for part in parts),
        tuple(task.support_labels[part] for part in parts),
        task.logit_scale * task.query_features,
        task.query_labels,
        task.text_features,
        task.logit_scale,
    )


def at_weights(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """Log probabilities at these weights."""
    kept = weights.detach().clone()
    return lambda design: (design @ kept.mT).log_softmax(-1)


def filtered(stream: Stream, covariance: str, prior_logit_variance: float) -> Iterator[tuple[Told, float]]:
    """The filter (rule `expected`, one pass): what it knows before each batch and at the end, and the seconds
    that the last batch took."""
    spread = torch.full_like(stream.start, prior_logit_variance / stream.scale**2)
    state = kalman.init(stream.start, spread, covariance)
    seconds = 0.0
    for design, labels in zip(stream.design, stream.labels, strict=True):
        yield _told(state.belief), seconds
        begin = time.process_time()
        state, _ = kalman.update(state, kalman.Batch(design, labels), RULES["expected"])
        seconds = time.process_time() - begin
    yield _told(state.belief), seconds


def _told(belief: bc.gaussian.Belief) -> Told:
    return Told(at_weights(belief.mean), lambda design: closed_form(*belief.logit_moments(design)).log())


def descended(stream: Stream, kind: str, replays: bool, step: float) -> Iterator[tuple[Told, float]]:
    """Gradient descent on the mean cross-entropy: one step a batch, or 20 on all labels so far.

    `step` is the rate times s² for sgd and times s for adam and adamw, whose steps do not scale with the
    gradient.
    """
    weights = stream.start.clone().requires_grad_()
    optimizer = _optimizer(kind, weights, step / stream.scale ** (2 if kind == "sgd" else 1))
    seconds = 0.0
    for count, (design, labels) in enumerate(zip(stream.design, stream.labels, strict=True), start=1):
        yield Told(at_weights(weights), None), seconds
        begin = time.process_time()
        if replays:
            design, labels = torch.cat(stream.design[:count]), torch.cat(stream.labels[:count])
        for _ in range(REPLAYED_STEPS if replays else 1):
            optimizer.zero_grad()
            cross_entropy(design @ weights.mT, labels).backward()
            optimizer.step()
        seconds = time.process_time() - begin
    yield Told(at_weights(weights), None), seconds


def _optimizer(kind: str, weights: Tensor, rate: float) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD([weights], lr=rate, momentum=MOMENTUM)
    if kind == "adam":
        return torch.optim.Adam([weights], lr=rate)
    return torch.optim.AdamW([weights], lr=rate, weight_decay=DECAY)


Learner = Callable[[Stream, float], Iterator[tuple[Told, float]]]
GRIDS = {
    "filter": np.logspace(-1, 3, 5),  # prior variance of a logit, s² v
    "sgd": np.logspace(0, 4, 9),  # s² times the rate
    "adam": np.logspace(-3, 1, 9),  # s times the rate
}


def learners() -> dict[str, tuple[Learner, np.ndarray]]:
    """Name -> the learner, and the values of its one number."""
    found: dict[str, tuple[Learner, np.ndarray]] = {}
    for covariance in ("class_block", "diagonal"):
        found[f"filter, {covariance}"] = (
            lambda stream, value, covariance=covariance: filtered(stream, covariance, value),
            GRIDS["filter"],
        )
    for kind in ("sgd", "adam", "adamw"):
        for replays in (False, True):
            found[kind + (", replay" if replays else "")] = (
                lambda stream, value, kind=kind, replays=replays: descended(stream, kind, replays, value),
                GRIDS["sgd" if kind == "sgd" else "adam"],
            )
    return found
