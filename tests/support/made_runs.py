"""Runs whose truth is known: labels are drawn from probabilities, which are then sharpened."""

from __future__ import annotations

import numpy as np

from bayes_clip.evaluation.results import Run, score


def made_run(
    rows: int,
    seed: int,
    sharpness: float = 1.0,
    classes: int = 5,
    ood_rows: int = 0,
    rounded: bool = False,
    engine: str = "ekf",
) -> Run:
    """`sharpness` 1 is calibrated; `rounded` makes ties of confidences and of novelty scores."""
    generator = np.random.default_rng(seed)
    logits = 2.0 * generator.normal(size=(rows, classes))
    true = softmax(logits)
    labels = (true.cumsum(1) < generator.random((rows, 1))).sum(1).clip(0, classes - 1)
    probabilities = softmax(sharpness * logits)
    if rounded:
        probabilities = np.round(8 * probabilities) + np.eye(classes)[0]
        probabilities /= probabilities.sum(1, keepdims=True)
    novelty, outside = generator.normal(size=rows), generator.normal(size=ood_rows) + 1.5
    if rounded:
        novelty, outside = novelty.round(1), outside.round(1)
    ood = outside if ood_rows else None
    row = {"task": "made", "model": "linear_probe", "engine": engine, "shots": 4, "seed": 0}
    row |= score(probabilities, labels, novelty, ood)
    return Run(row, probabilities, labels, novelty, np.zeros(rows), ood)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)
