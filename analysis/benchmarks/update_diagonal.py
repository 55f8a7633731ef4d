"""Case `update_diagonal`: a diagonal belief over P = C D weights takes in one batch of N rows.

Like for like: posteriors' diagonal EKF takes one natural-gradient step in a diagonal precision, to which it
adds the squared gradients of the rows (empirical Fisher). Our rule `natural_gradient` takes the same step
with the model's own Fisher information; so what it finds differs, and is compared with the formula written
out in float64 instead: the largest difference of means and variances, relative to the largest change. What
posteriors has no counterpart for is our rule `plain` with `diagonal`, which keeps the coupling of the batch's
rows: a row of its own (`coupled`), compared with the inverse of the whole (N C, N C) matrix.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from analysis.benchmarks.contest import Contest, Size, Work, fastest
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.peers import titled
from bayes_clip.gaussian import Diagonal, VariationalDiagonal
from bayes_clip.inference import kalman, natural_gradient
from bayes_clip.inference.kalman import KalmanState, StepInfo
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import RULES

PRIOR_VARIANCE = 1e-3
TOLERANCE = 1e-4


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """Two contests, against posteriors as it is quickest: the same step, and the one that couples rows."""
    name = titled("posteriors", "ekf.diag_fisher")
    task = clip_like_task(size.classes, size.features, size.rows, size.classes)
    assert task.text_features is not None
    design, labels = (task.logit_scale * task.support_features).to(device), task.support_labels.to(device)
    mean = task.text_features.to(device)
    variance = torch.full_like(mean, PRIOR_VARIANCE)
    batch = Batch(design, labels)
    ways = {way: _theirs(mean, design, labels, way) for way in ("per-sample in-place", "vmap in-place")}
    chosen = fastest(ways, device)
    peers = {f"{name} {chosen}": ways[chosen]}
    state = kalman.init(mean, variance, "diagonal_variational")
    yield _contest(size, state, batch, natural_gradient.update, natural_step, natural_work(size), peers)
    state, size = kalman.init(mean, variance, "diagonal"), replace(size, more="coupled")
    yield _contest(size, state, batch, coupled_step, coupled_twin, coupled_work(size), peers)


def _contest(
    size: Size,
    state: KalmanState,
    batch: Batch,
    step: Callable[[KalmanState, Batch], tuple[KalmanState, StepInfo]],
    twin: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
    work: Work,
    peers: dict[str, Callable[[], Any]],
) -> Contest:
    mean, exact = state.prior_mean, twin(state.prior_mean, batch.design, batch.labels)

    @torch.no_grad()
    def ours() -> Any:
        return step(state, batch)[0].belief

    return Contest(
        case=f"update_diagonal@{size}",
        ours=ours,
        peers=peers,
        agreement=lambda found, _: difference(found, exact, mean),
        tolerance=TOLERANCE,
        work=work,
        rounds=9,
        repeats=5,
    )


def coupled_step(state: KalmanState, batch: Batch) -> tuple[KalmanState, StepInfo]:
    """The rule `plain`: the exact extended Kalman update, then its marginal variances."""
    return kalman.update(state, batch, RULES["plain"])


def natural_work(size: Size) -> Work:
    """Logits, their variances, information, gradient: 2 C D b each; mean, precision read and written."""
    numbers = size.classes * size.features
    return Work(8 * numbers * size.rows, 4 * (4 * numbers + size.rows * size.features))


def natural_step(mean: Tensor, design: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C, D) after one natural-gradient step in the diagonal precision, in float64."""
    exact, centre = design.double(), mean.double()
    probabilities = (exact @ centre.mT).softmax(-1)
    residual = torch.eye(len(mean)).to(exact)[labels] - probabilities
    information = torch.einsum("nc,nd->cd", probabilities * (1 - probabilities), exact.square())
    variance = 1 / (1 / PRIOR_VARIANCE + information)
    return centre + variance * torch.einsum("nc,nd->cd", residual, exact), variance


def coupled_work(size: Size) -> Work:
    """Gram blocks, and downdate of the weights: 2 C D b² each; mean and variance read and written."""
    numbers = size.classes * size.features
    return Work(4 * numbers * size.rows**2, 4 * (4 * numbers + size.rows * size.features))


def coupled_twin(mean: Tensor, design: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
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


def difference(ours: Diagonal | VariationalDiagonal, twin: tuple[Tensor, Tensor], mean: Tensor) -> float:
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
