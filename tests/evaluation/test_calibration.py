"""Other calibration errors against their definitions, spelled out row by row."""

from __future__ import annotations

import numpy as np
import pytest
from made_runs import made_run

from bayes_clip.evaluation import metrics
from bayes_clip.evaluation.calibration import debiased_ece, max_calibration_error, top_label_ece


@pytest.fixture(scope="module")
def sure_and_right() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    run = made_run(300, seed=3, sharpness=1.5)
    sure, right = metrics.confidence_and_correct(run.probabilities, run.labels)
    return run.probabilities, run.labels, sure, right


def test_top_label_and_largest_gap_are_what_they_say(sure_and_right: tuple[np.ndarray, ...]) -> None:
    probabilities, labels, sure, right = sure_and_right
    winner, gaps, of_labels = probabilities.argmax(1), [], 0.0
    for k in range(15):
        inside = (sure >= k / 15) & ((sure < (k + 1) / 15) | (k == 14))
        if inside.any():
            gaps.append(abs(sure[inside].mean() - right[inside].mean()))
        for label in range(5):
            rows = inside & (winner == label)
            of_labels += abs((sure[rows] - right[rows]).sum()) / len(sure)
    assert max_calibration_error(probabilities, labels) == pytest.approx(max(gaps), abs=1e-12)
    assert top_label_ece(probabilities, labels) == pytest.approx(of_labels, abs=1e-12)
    assert top_label_ece(probabilities, labels) >= metrics.ece(probabilities, labels)


def test_debiased_error_is_that_of_kumar_liang_and_ma(sure_and_right: tuple[np.ndarray, ...]) -> None:
    probabilities, labels, sure, right = sure_and_right
    total = 0.0
    for rows in np.array_split(np.argsort(sure), 15):
        accuracy = right[rows].mean()
        gap, noise = sure[rows].mean() - accuracy, accuracy * (1 - accuracy) / (len(rows) - 1)
        total += len(rows) / len(sure) * (gap**2 - noise)
    assert debiased_ece(probabilities, labels) == pytest.approx(max(total, 0) ** 0.5, abs=1e-12)


def test_debiasing_takes_off_what_chance_adds() -> None:
    """Averaged over draws, the square of a calibrated model's error is zero after, and is not before."""
    squares, plain = [], []
    for seed in range(100):
        run = made_run(150, seed)
        sure, right = metrics.confidence_and_correct(run.probabilities, run.labels)
        for rows in np.array_split(np.argsort(sure), 15):
            accuracy = right[rows].mean()
            gap = sure[rows].mean() - accuracy
            squares.append(gap**2 - accuracy * (1 - accuracy) / (len(rows) - 1))
            plain.append(gap**2)
    assert abs(np.mean(squares)) < 0.2 * np.mean(plain)
    few = made_run(4, 0)
    assert debiased_ece(few.probabilities, few.labels) == 0.0  # bins of one row say nothing
