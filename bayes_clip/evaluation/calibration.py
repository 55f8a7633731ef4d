"""More ways to measure calibration: one number depends on how confidences are binned, several tell how much.

`metrics` has the equal-width, equal-mass and classwise errors, `smooth_ece` the one without bins. Shapes as
there: `probabilities` (M, C), `labels` (M,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bayes_clip.evaluation.metrics import (
    NUM_BINS,
    bin_index,
    confidence_and_correct,
    share_ties,
)


def top_label_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = NUM_BINS) -> float:
    """Calibration error of the winning class within the rows that each class wins.

    Equal-width bins of every predicted class on its own (Gupta & Ramdas 2021): a model that is too sure of
    one class and not sure enough of another has an error here, and may have none when they are pooled.
    """
    confidence, correct = confidence_and_correct(probabilities, labels)
    cell = np.asarray(probabilities).argmax(axis=1) * bins + bin_index(confidence, bins)
    return float(np.abs(np.bincount(cell, weights=confidence - correct)).sum() / len(confidence))


def max_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = NUM_BINS) -> float:
    """Largest gap between mean confidence and accuracy of the equal-width bins that hold a row.

    Guo et al. (2017). A bin with one row counts as much as one with a thousand: it is noisy.
    """
    confidence, correct = confidence_and_correct(probabilities, labels)
    index = bin_index(confidence, bins)
    counts = np.bincount(index, minlength=bins)
    totals = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float((np.abs(totals) / np.maximum(counts, 1)).max())


def debiased_ece(probabilities: ArrayLike, labels: ArrayLike, bins: int = NUM_BINS) -> float:
    """Root mean squared calibration error over equal-mass bins, less what chance alone adds to its square.

    Kumar, Liang & Ma (2019), the debiased estimator: from the squared gap of a bin of n rows with accuracy a
    goes a (1 − a) / (n − 1), the variance of a; a sum below zero counts as zero. Bins of one row are left
    out. Rows of equal confidence share their mean correctness, as in `adaptive_ece`.
    """
    confidence, correct = confidence_and_correct(probabilities, labels)
    order = np.argsort(confidence, kind="stable")
    shared = share_ties(confidence, correct)[order]
    square = 0.0
    for sure, right in zip(
        *(np.array_split(each, min(bins, len(order))) for each in (confidence[order], shared)), strict=True
    ):
        if len(right) > 1:
            noise = right.mean() * (1 - right.mean()) / (len(right) - 1)
            square += len(right) / len(order) * ((sure.mean() - right.mean()) ** 2 - noise)
    return float(np.sqrt(max(square, 0.0)))
