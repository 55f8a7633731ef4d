"""Scores of predicted class probabilities and of novelty scores: plain functions of numpy arrays.

Shapes: `probabilities` (M, C), rows sum to one; `labels` (M,), integers in [0, C). All sums run in float64
over the whole query set at once (calibration errors are not averages over batches).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NUM_BINS = 15


def confidence_and_correct(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Largest probability of each row, and 1.0 where its class is the label, else 0.0; both (M,)."""
    values, truth = _checked(probabilities, labels)
    return values.max(axis=1), (values.argmax(axis=1) == truth).astype(np.float64)


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of rows whose most probable class (the first, when several tie) is the label."""
    return float(confidence_and_correct(probabilities, labels)[1].mean())


def nll(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean negative log-likelihood of the labels, in nats; finite, as `nll_of_rows` says."""
    return float(nll_of_rows(probabilities, labels).mean())


def nll_of_rows(probabilities: ArrayLike, labels: ArrayLike) -> Array:
    """Negative log-likelihood of each label, in nats, (M,).

    A label that was given probability zero (float32 softmax underflows at logit scale 100) would cost an
    infinite amount: probabilities are clamped at the smallest normal float64, a cost of 708 nats.
    """
    values, truth = _checked(probabilities, labels)
    of_label = values[np.arange(len(truth)), truth]
    return np.asarray(-np.log(np.maximum(of_label, np.finfo(np.float64).tiny)))


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean over rows of the sum over classes of (p - one-hot label) squared; in [0, 2] (Brier 1950)."""
    values, truth = _checked(probabilities, labels)
    return float(((values - np.eye(values.shape[1])[truth]) ** 2).sum(axis=1).mean())


def bin_index(values: ArrayLike, bins: int = NUM_BINS) -> NDArray[np.int64]:
    """Index of the equal-width bin [k/bins, (k+1)/bins) each value in [0, 1] falls in; 1.0 is in the last."""
    inner_edges = np.linspace(0.0, 1.0, bins + 1)[1:-1]
    return np.digitize(np.asarray(values, dtype=np.float64), inner_edges).astype(np.int64)


def binned_gap(predicted: ArrayLike, observed: ArrayLike, bins: int = NUM_BINS) -> float:
    """Sum over equal-width bins of (share of rows) x |mean predicted - mean observed|."""
    difference = np.asarray(predicted, dtype=np.float64) - np.asarray(observed, dtype=np.float64)
    totals = np.bincount(bin_index(predicted, bins), weights=difference, minlength=bins)
    return float(np.abs(totals).sum() / len(difference))


def ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = NUM_BINS) -> float:
    """Expected calibration error of the winning class over equal-width bins (Guo et al. 2017)."""
    return binned_gap(*confidence_and_correct(probabilities, labels), bins)


def adaptive_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = NUM_BINS) -> float:
    """Expected calibration error of the winning class over equal-mass bins (Nixon et al. 2019).

    Rows sorted by confidence are cut into `bins` groups whose sizes differ by at most one. Rows of equal
    confidence share their mean correctness, so that the value does not depend on the order of the rows.
    """
    confidence, correct = confidence_and_correct(probabilities, labels)
    difference = np.sort(confidence) - share_ties(confidence, correct)[np.argsort(confidence)]
    groups = np.array_split(difference, min(bins, len(difference)))
    return float(sum(abs(group.sum()) for group in groups) / len(difference))


def classwise_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = NUM_BINS) -> float:
    """Mean over classes of the equal-width calibration error of their probability (Kull et al. 2019)."""
    values, truth = _checked(probabilities, labels)
    return float(np.mean([binned_gap(values[:, k], truth == k, bins) for k in range(values.shape[1])]))


def auroc(inside: ArrayLike, outside: ArrayLike) -> float:
    """Probability that a row from outside has a larger score than one from inside; a tie counts one half."""
    inner, outer = np.sort(_scores(inside, "inside")), _scores(outside, "outside")
    below = np.searchsorted(inner, outer, side="left") + np.searchsorted(inner, outer, side="right")
    return float(below.mean() / (2 * len(inner)))


def fpr_at_95_tpr(inside: ArrayLike, outside: ArrayLike) -> float:
    """Share of outside rows that pass as inside at the score below which 95 % of the inside rows lie.

    Inside is the positive class and a small score says "inside", the convention of Hendrycks & Gimpel (2017).
    """
    inner, outer = np.sort(_scores(inside, "inside")), _scores(outside, "outside")
    accepted = -(-len(inner) * 95 // 100)  # the ceiling of 0.95 x rows, in integers
    return float((outer <= inner[accepted - 1]).mean())


def share_ties(keys: ArrayLike, values: ArrayLike) -> Array:
    """`values` with each replaced by the mean over all rows that have the same key."""
    _, group, counts = np.unique(np.asarray(keys), return_inverse=True, return_counts=True)
    sums = np.bincount(group, weights=np.asarray(values, dtype=np.float64))
    return np.asarray((sums / counts)[group])


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Float64 probabilities and int64 labels, or a ValueError that names what does not fit."""
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or truth.shape != values.shape[:1] or len(truth) == 0:
        shapes = f"{values.shape} and {truth.shape}"
        raise ValueError(f"probabilities must be (M, C) and labels (M,), M > 0; got {shapes}")
    if not np.isfinite(values).all() or values.min() < 0.0 or values.max() > 1.0 + 1e-6:
        raise ValueError("probabilities must lie in [0, 1]")
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ValueError(f"labels must be integers in [0, {values.shape[1]})")
    return np.minimum(values, 1.0), truth.astype(np.int64)


def _scores(values: ArrayLike, name: str) -> Array:
    scores = np.asarray(values, dtype=np.float64).ravel()
    if len(scores) == 0 or np.isnan(scores).any():
        raise ValueError(f"{name} scores must be non-empty and not NaN")
    return scores
