"""Case `predictive_variance`: the variances of all logits of N rows, from the same curvature and prior.

Both posteriors are Laplace at our mode, Kronecker-factored or diagonal. laplace-torch has a closed form for
the diagonal; for Kronecker factors it goes through a Jacobian (C, C D) per row, so that a few rows are timed,
in chunks of the quickest size, and scaled up. Agreement: the largest relative difference of a variance on the
timed rows, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import bayes_clip as bc
from analysis.benchmarks import laplace_peer as peer
from analysis.benchmarks.contest import Contest, Partly, Size, Work, fastest, timed
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.peers import titled

PRIOR_VARIANCE = 0.01
SHOTS = 4
TIMED_ROWS = 4
CHUNKS = (1, 4)
TOLERANCE = 1e-3  # relative


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """One contest for each structure."""
    name = titled("laplace-torch")
    task = clip_like_task(size.classes, size.features, SHOTS * size.classes, size.rows)
    rows = (task.logit_scale * task.query_features).to(device)
    head = _head(task, device)
    for structure, covariance in (("kron", "kronecker"), ("diag", "diagonal")):
        settings = bc.FitSettings(
            engine="laplace", covariance=covariance, prior_variance=PRIOR_VARIANCE, device=str(device)
        )
        belief: Any = bc.fit(task, settings).posterior.weights
        found = peer.posterior(peer.Network(belief.mean), head, structure, "BackPackGGN")
        yield Contest(
            case=f"predictive_variance@{size}",
            ours=partial(_ours, belief, rows),
            peers={f"{name} {structure} BackPackGGN": _theirs(found, rows, structure)},
            agreement=largest_relative_difference,
            tolerance=TOLERANCE,
            work=kronecker_work(size) if structure == "kron" else diagonal_work(size),
            rounds=3 if structure == "kron" else 7,
            repeats=1 if structure == "kron" else 5,
        )


def kronecker_work(size: Size) -> Work:
    """Rows into feature axes (2 N D²), squares times spreads (2 N D C), out of class axes (2 N C²)."""
    classes, features, rows = size.classes, size.features, size.rows
    flops = 2 * rows * (features**2 + features * classes + classes**2)
    numbers = rows * (features + classes) + features**2 + classes**2 + classes * features
    return Work(flops, 4 * numbers)


def diagonal_work(size: Size) -> Work:
    """Squared rows (N, D) times variances (D, C)."""
    classes, features, rows = size.classes, size.features, size.rows
    return Work(2 * rows * features * classes, 4 * (rows * features + classes * features + rows * classes))


def largest_relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """Of variances, on the rows that the peer did."""
    return float(((ours[: len(theirs)] - theirs) / theirs).abs().max())


def _head(task: bc.Task, device: torch.device) -> peer.Head:
    assert task.text_features is not None
    design = (task.logit_scale * task.support_features).to(device)
    return peer.Head(design, task.support_labels.to(device), task.text_features.to(device), PRIOR_VARIANCE)


@torch.no_grad()
def _ours(belief: Any, rows: Tensor) -> Tensor:
    return belief.logit_moments(rows)[1]


def _theirs(found: Any, rows: Tensor, structure: str) -> Callable[[], Any]:
    if structure == "diag":
        return lambda: peer.variances(found, rows, len(rows))
    few = rows[:TIMED_ROWS]
    ways: dict[str, Callable[[], Any]] = {
        str(chunk): partial(peer.variances, found, few, chunk) for chunk in CHUNKS
    }
    chunk = int(fastest(ways, rows.device, tries=0))

    def way() -> Partly[Tensor]:
        seconds, found_there = timed(lambda: peer.variances(found, few, chunk), rows.device)
        return Partly(found_there, seconds * (len(rows) / len(few) - 1))

    return way
