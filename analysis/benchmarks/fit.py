"""Case `fit`: from support features to probabilities of the query set, at equal or better quality.

Ours: engine `laplace` with the peer's structure, and in rows of its own (`ekf`) the default engine; with the
search for prior variance and covariance scale, then `predict`. The peer is given our prior variance for
nothing; it trains a head (L-BFGS from zero-shot), fits its last-layer posterior, tunes the prior precision by
marginal likelihood, and predicts: by its default (probit), whose Jacobians are slow, so that a part of the
rows is timed and scaled up; or by 100 draws of the weights, its quickest.
Agreement: our NLL minus the peer's on the whole query set, in nats; it must not be above zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import bayes_clip as bc
from analysis.benchmarks import laplace_peer as peer
from analysis.benchmarks.contest import Contest, Partly, Size, Work
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.peers import titled
from bayes_clip.evaluation.metrics import nll

QUERIES = 256
MOST_CLASSES_FILTERED = 100  # at 400 classes the default engine takes minutes, and the whole run has ten
CHUNK_NUMBERS = 2**24  # of the Jacobians of rows that are predicted together
TIMED_NUMBERS = 2**26  # of the Jacobians of all timed rows: 59 rows at 47 classes of 512 features, one at 400


OURS = {"kron": "kronecker", "diag": "diagonal"}  # the same structures by our names


@dataclass(frozen=True)
class Fitted:
    """What a peer's run leaves behind: its posterior, and probabilities of the first rows."""

    posterior: Any
    first: Tensor  # (n, C), n of the M query rows


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """Like for like, structure by structure; up to 100 classes the default engine against all of them."""
    name = titled("laplace-torch")
    task = clip_like_task(size.classes, size.features, size.rows, QUERIES)
    likes = {
        structure: bc.FitSettings(engine="laplace", covariance=ours, device=str(device))
        for structure, ours in OURS.items()
    }
    prior_variance = bc.fit(task, likes["diag"]).tuned.prior_variance
    head, queries = _head(task, prior_variance, device)
    every: dict[str, Callable[[], Any]] = {}
    for structure, settings in likes.items():
        backend = peer.fastest_backend(head, structure)
        peers = {
            f"{name} {structure} {backend} {predictive}": _peer(head, queries, structure, backend, predictive)
            for predictive in ("probit", "draws")
        }
        every |= peers
        yield _contest(f"fit@{size}", task, queries, settings, peers, like_work(size))
    if size.classes <= MOST_CLASSES_FILTERED:
        yield _contest(
            f"fit@{size},ekf", task, queries, bc.FitSettings(device=str(device)), every, work(size)
        )


def _contest(
    case: str,
    task: bc.Task,
    queries: Tensor,
    settings: bc.FitSettings,
    peers: dict[str, Callable[[], Any]],
    limit: Work,
) -> Contest:
    def ours() -> Tensor:
        return bc.fit(task, settings).posterior.predict(task.query_features).probabilities

    def agreement(probabilities: Tensor, fitted: Fitted) -> float:
        theirs = fitted.first
        if len(theirs) < QUERIES:
            theirs = peer.probit_twin(fitted.posterior, queries, theirs)
        labels = task.query_labels.numpy()
        return nll(probabilities.double().numpy(), labels) - nll(theirs.double().cpu().numpy(), labels)

    return Contest(
        case=case,
        ours=ours,
        peers=peers,
        agreement=agreement,
        tolerance=0.0,
        work=limit,
        rounds=3,
        warm_up=lambda: None,  # the fit for the prior and the trial of the backends have been that
    )


def like_work(size: Size) -> Work:
    """The least of a Laplace fit: logits, gradient and curvature of every label once, and the queries."""
    numbers = size.classes * size.features
    return Work(
        6 * numbers * size.rows + 2 * numbers * QUERIES, 4 * (3 * numbers + size.rows * size.features)
    )


def work(size: Size) -> Work:
    """Of a single pass of the class-block filter at a given variance, and of all logit variances.

    4 C D² operations a row, and the covariance read and written once for a batch of one row a class; 2 C D² a
    query row. The search for the prior variance is not counted: the limit is that of a fit which knew it.
    """
    covariance = size.classes * size.features**2
    visits = max(1, size.rows // size.classes)
    flops = 4 * covariance * size.rows + 2 * covariance * QUERIES
    return Work(flops, 4 * covariance * (2 * visits + 1))


def _head(task: bc.Task, prior_variance: float, device: torch.device) -> tuple[peer.Head, Tensor]:
    assert task.text_features is not None
    design, queries = (task.logit_scale * rows for rows in (task.support_features, task.query_features))
    text = task.text_features.to(device)
    return peer.Head(design.to(device), task.support_labels.to(device), text, prior_variance), queries.to(
        device
    )


def _peer(
    head: peer.Head, queries: Tensor, structure: str, backend: str, predictive: str
) -> Callable[[], Fitted | Partly[Fitted]]:
    classes, features = head.prior_mean.shape
    numbers = classes**2 * features  # of the Jacobian of a row
    chunk, rows = max(1, CHUNK_NUMBERS // numbers), max(1, TIMED_NUMBERS // numbers)

    def way() -> Fitted | Partly[Fitted]:
        found = peer.posterior(peer.trained(head), head, structure, backend)
        peer.tune(found, head)
        if predictive == "draws":
            return Fitted(found, peer.sampled(found, queries))
        part = peer.probit(found, queries, min(rows, len(queries)), chunk)
        return Partly(Fitted(found, part.result), part.seconds_of_the_rest)

    return way
