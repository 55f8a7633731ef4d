"""Reliability of confidences: how often the model is right where it says it is p sure.

A calibrated model does not lie exactly on the diagonal of a reliability diagram, because a bin holds few
rows; nor is its calibration error zero. Both are worked out here exactly: given the confidences c_i, the
number of correct rows in a bin of a calibrated model is a sum of independent Bernoulli(c_i), whose
distribution (Poisson-binomial) is a product of short polynomials. Hence the consistency band of
Bröcker & Smith (2007), without their resampling noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.signal import fftconvolve

from bayes_clip.evaluation.metrics import NUM_BINS, Array, bin_index


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of confidence, B of them; NaN where a bin is empty.

    `lower` and `upper` enclose, with probability `level` for each bin on its own, the `accuracy` that a
    perfectly calibrated model with these confidences would show. `ece` is the calibration error found and
    `ece_if_calibrated` what such a model would show on average: the floor below which ECE says nothing.
    """

    edges: Array  # (B + 1,)
    counts: np.ndarray  # (B,) int64
    confidence: Array  # (B,) mean confidence of the rows in the bin
    accuracy: Array  # (B,) share of them that is correct
    lower: Array  # (B,)
    upper: Array  # (B,)
    level: float
    ece: float
    ece_if_calibrated: float


def reliability(
    confidence: ArrayLike, correct: ArrayLike, bins: int = NUM_BINS, level: float = 0.95
) -> Reliability:
    """Bin (M,) confidences in [0, 1] and compare them with (M,) `correct` (1.0 or 0.0)."""
    claimed, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if claimed.ndim != 1 or claimed.shape != right.shape or len(claimed) == 0:
        raise ValueError(f"confidence and correct must be (M,), M > 0; got {claimed.shape}, {right.shape}")
    if not (claimed.min() >= 0.0 and claimed.max() <= 1.0):
        raise ValueError("confidence must lie in [0, 1]")
    index = bin_index(claimed, bins)
    counts = np.bincount(index, minlength=bins)
    mean_claimed, mean_right, lower, upper = np.full((4, bins), np.nan)
    total_gap, gap_if_calibrated = 0.0, 0.0
    for k in np.flatnonzero(counts):
        inside, count = claimed[index == k], int(counts[k])
        mean_claimed[k], mean_right[k] = inside.mean(), right[index == k].mean()
        chances = poisson_binomial(inside)
        lower[k], upper[k] = central_interval(chances, level) / count
        total_gap += count * abs(mean_claimed[k] - mean_right[k])
        gap_if_calibrated += float(chances @ np.abs(np.arange(count + 1) - inside.sum()))
    return Reliability(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        confidence=mean_claimed,
        accuracy=mean_right,
        lower=lower,
        upper=upper,
        level=level,
        ece=total_gap / len(claimed),
        ece_if_calibrated=gap_if_calibrated / len(claimed),
    )


def poisson_binomial(chances: ArrayLike) -> Array:
    """Probabilities (n + 1,) of 0..n successes in n independent trials of the given (n,) chances.

    The generating polynomials 1 - c + c x are multiplied pairwise, as a tree; long products go through the
    Fourier transform, whose error of 1e-16 or so may dip below zero and is cut off.
    """
    heads = np.asarray(chances, dtype=np.float64)
    polynomials = list(np.stack([1.0 - heads, heads], axis=1))
    while len(polynomials) > 1:
        odd_one_out = polynomials[-1:] if len(polynomials) % 2 else []
        pairs = zip(polynomials[0:-1:2], polynomials[1::2], strict=False)
        polynomials = [_multiply(left, right) for left, right in pairs] + odd_one_out
    return polynomials[0] / polynomials[0].sum()


def _multiply(left: Array, right: Array) -> Array:
    if len(right) < 256:
        return np.convolve(left, right)
    return np.maximum(fftconvolve(left, right), 0.0)


def central_interval(probabilities: Array, level: float) -> Array:
    """Smallest and largest count, each with at most (1 - level) / 2 of the probability beyond it."""
    cumulative = np.cumsum(probabilities)
    tail = (1.0 - level) / 2.0
    rounding = 1e-12  # so that a certain outcome (c = 1.0) is not lost to the last digit of a sum
    lowest = np.searchsorted(cumulative, tail + rounding, side="right")
    highest = np.searchsorted(cumulative, 1.0 - tail - rounding, side="left")
    return np.array([lowest, highest], dtype=np.float64)
