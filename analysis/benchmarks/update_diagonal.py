"""Case `update_diagonal`: a diagonal belief over P = C D weights takes in one batch of N rows.

posteriors' diagonal EKF adds the squared gradients of the rows (empirical Fisher) where ours adds what the
model says of them (Gauss-Newton) and keeps the coupling of the batch's rows: different approximations, so
their answers are not compared. Agreement: our own update against a naive float64 one that inverts the whole
(N C, N C) matrix, largest difference of means and variances, relative to the largest change.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from analysis.benchmarks.contest import Contest, Size, Work, fastest
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.peers import titled
from bayes_clip.gaussian import Diagonal
from bayes_clip.inference import kalman
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import RULES

PRIOR_VARIANCE = 1e-3
TOLERANCE = 1e-4


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """One contest, against posteriors as it is quickest."""
    name = titled("posteriors", "ekf.diag_fisher")
    task = clip_like_task(size.classes, size.features, size.rows, size.classes)
    assert task.text_features is not None
    design, labels = (task.logit_scale * task.support_features).to(device), task.support_labels.to(device)
    mean = task.text_features.to(device)
    state = kalman.init(mean, torch.full_like(mean, PRIOR_VARIANCE), "diagonal")
    batch = Batch(design, labels)
    ways = {way: _theirs(mean, design, labels, way) for way in ("per-sample in-place", "vmap in-place")}
    chosen = fastest(ways, device)
    twin: list[tuple[Tensor, Tensor]] = []

    def agreement(ours: Diagonal, _: Any) -> float:
        if not twin:
            twin.append(naive_update(mean, design, labels))
        return difference(ours, twin[0], mean)

    @torch.no_grad()
    def ours() -> Diagonal:
        belief = kalman.update(state, batch, RULES["plain"])[0].belief
        assert isinstance(belief, Diagonal)
        return belief

    yield Contest(
        case=f"update_diagonal@{size}",
        ours=ours,
        peers={f"{name} {chosen}": ways[chosen]},
        agreement=agreement,
        tolerance=TOLERANCE,
        work=work(size),
        rounds=9,
        repeats=3,
    )


def work(size: Size) -> Work:
    """Gram blocks, and downdate of the weights: 2 C D b² each; mean and variance read and written."""
    numbers = size.classes * size.features
    return Work(4 * numbers * size.rows**2, 4 * (4 * numbers + size.rows * size.features))


def naive_update(mean: Tensor, design: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C, D) after the batch, by the textbook, with the whole matrix (I + R G)⁻¹."""
    (rows, _), classes = design.shape, len(mean)
    exact, centre = design.double(), mean.double()
    probabilities = (exact @ centre.mT).softmax(-1)
    each = torch.eye(classes).to(exact)
    curvature = torch.einsum("nc,ck->nck", probabilities, each)
    curvature = curvature - probabilities[:, :, None] * probabilities[:, None, :]
    gram = PRIOR_VARIANCE * torch.einsum("ck,nm->cnkm", each, exact @ exact.mT).reshape(classes * rows, -1)
    joint = torch.einsum("nck,nm->cnkm", curvature, torch.eye(rows).to(exact)).reshape(classes * rows, -1)
    residual = (each[labels] - probabilities).mT.reshape(-1)
    inner = torch.eye(classes * rows).to(exact) + joint @ gram
    dual = torch.linalg.solve(inner, residual).reshape(classes, rows)
    downdate = torch.linalg.solve(inner, joint).reshape(classes, rows, classes, rows)
    own = torch.stack([downdate[index, :, index] for index in range(classes)])
    removed = torch.einsum("nd,cnm,md->cd", exact, own, exact)
    return centre + PRIOR_VARIANCE * dual @ exact, PRIOR_VARIANCE - PRIOR_VARIANCE**2 * removed


def difference(ours: Diagonal, twin: tuple[Tensor, Tensor], mean: Tensor) -> float:
    """Largest difference of a mean and of a variance, each relative to the largest change of one."""
    off, changes = (ours.mean - twin[0]).abs().max(), (twin[0] - mean).abs().max()
    wide, narrowed = (ours.variance - twin[1]).abs().max(), (PRIOR_VARIANCE - twin[1]).abs().max()
    return float(torch.maximum(off / changes, wide / narrowed))


def _theirs(mean: Tensor, design: Tensor, labels: Tensor, way: str) -> Callable[[], Any]:
    """Their update in place; the learning rate is the batch's size, since they average over the batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what posteriors itself imports
        from posteriors.ekf import diag_fisher

    def each_row(weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        inputs, targets = batch
        return -cross_entropy(inputs @ weights["head"].mT, targets, reduction="none"), inputs.new_empty(0)

    def all_rows(weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        values, nothing = each_row(weights, batch)
        return values.mean(), nothing

    per_sample = way.startswith("per-sample")
    transform = diag_fisher.build(
        each_row if per_sample else all_rows,
        lr=len(design),
        per_sample=per_sample,
        init_sds=PRIOR_VARIANCE**0.5,
    )
    state = transform.init({"head": mean.clone()})
    return lambda: transform.update(state, (design, labels), inplace=True)
