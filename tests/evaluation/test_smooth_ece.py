"""Smooth calibration error against a reflected Gaussian written out as mirror images."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import made_run
from scipy.optimize import brentq

from bayes_clip.evaluation import smooth_ece as module
from bayes_clip.evaluation.metrics import confidence_and_correct
from bayes_clip.evaluation.smooth_ece import coefficients, smooth_ece, smooth_errors, smoothed


def naive(sure: np.ndarray, right: np.ndarray, bandwidth: float, points: int) -> float:
    """∫ |mean r K(t, c)| dt with K the sum of Gaussians at the mirror images of c at 0 and 1."""
    places, total = (np.arange(points) + 0.5) / points, np.zeros(points)
    for turn in range(-4, 5):
        for image in (2 * turn + sure, 2 * turn - sure):
            bell = np.exp(-(((places - image[:, None]) / bandwidth) ** 2) / 2)
            total += ((sure - right)[:, None] * bell).mean(0) / (bandwidth * (2 * np.pi) ** 0.5)
    return float(np.abs(total).mean())


@pytest.mark.parametrize(("rows", "sharpness"), [(60, 1.0), (60, 2.0)])
def test_equals_the_naive_fixed_point(rows: int, sharpness: float) -> None:
    run = made_run(rows, seed=1, sharpness=sharpness)
    sure, right = confidence_and_correct(run.probabilities, run.labels)
    wanted = brentq(lambda width: naive(sure, right, width, 1000) - width, 1e-3, 1.0, xtol=1e-9)
    assert smooth_ece(run.probabilities, run.labels) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("bandwidth", [0.05, 0.3, 1.0])
def test_smoothing_equals_mirror_images_on_the_same_points(bandwidth: float) -> None:
    run = made_run(100, seed=2)
    sure, right = confidence_and_correct(run.probabilities, run.labels)
    modes = 256
    found = smoothed(coefficients(sure, sure - right, modes)[:, None], np.array([bandwidth]))[0]
    assert found == pytest.approx(naive(sure, right, bandwidth, module.GRID * modes), abs=1e-9)


@pytest.mark.skipif(importlib.util.find_spec("relplot") is None, reason="the authors' package, not needed")
@pytest.mark.parametrize("sharpness", [1.0, 1.5])
def test_equals_the_authors_package(sharpness: float) -> None:
    from relplot.metrics import smECE

    run = made_run(2000, seed=4, sharpness=sharpness)
    theirs = smECE(*confidence_and_correct(run.probabilities, run.labels))
    assert smooth_ece(run.probabilities, run.labels) == pytest.approx(float(theirs), abs=1e-3)  # their eps


def test_is_zero_where_nothing_is_wrong_and_one_where_all_is() -> None:
    certain = np.eye(3)
    assert smooth_ece(certain, np.arange(3)) == 0.0
    assert smooth_ece(np.tile(certain[:1], (5, 1)), np.ones(5, dtype=int)) == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(0.5, 3.0))
def test_is_a_fixed_point_below_the_mean_gap_and_ignores_the_order(
    seed: int, rows: int, sharpness: float
) -> None:
    run = made_run(rows, seed, sharpness)
    sure, right = confidence_and_correct(run.probabilities, run.labels)
    found = smooth_ece(run.probabilities, run.labels)
    assert abs((sure - right).mean()) - 1e-3 <= found <= np.abs(sure - right).mean() + 1e-3
    assert smooth_ece(run.probabilities[::-1], run.labels[::-1]) == pytest.approx(found, abs=1e-9)
    waves = coefficients(sure, sure - right, 4096)[:, None]
    assert smooth_errors(waves)[0] == pytest.approx(found, rel=1e-3)
