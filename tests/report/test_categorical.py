"""Randomised PIT and reliability without bins, on predictions whose calibration is known."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import arviz
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import kstest

from bayes_clip.report.categorical import pav_reliability, randomised_labels
from bayes_clip.report.export import from_draws

matplotlib.use("Agg")
OLD = version("arviz").startswith("0.")
CLASSES, ROWS, DRAWS = 3, 400, 400


def predictions(sharpen: float) -> Any:
    """Confident forecasts p; labels from p, predicted labels from p^sharpen, normalised."""
    generator = np.random.default_rng(3)
    truth = generator.dirichlet(np.full(CLASSES, 0.3), ROWS)
    said = truth**sharpen / (truth**sharpen).sum(1, keepdims=True)
    labels = np.array([generator.choice(CLASSES, p=p) for p in truth])
    predicted = np.stack([generator.choice(CLASSES, p=p, size=DRAWS) for p in said], 1)
    log_likelihood = np.log(said[range(ROWS), labels]) + 0.01 * generator.normal(size=(DRAWS, ROWS))
    return from_draws({"scale": generator.normal(size=DRAWS)}, log_likelihood, predicted, labels)


@pytest.mark.parametrize("sharpen, uniform", [(1.0, True), (3.0, False)])
def test_randomised_pit_is_uniform_if_and_only_if_the_predictions_are_calibrated(
    sharpen: float, uniform: bool
) -> None:
    y, y_hat = randomised_labels(predictions(sharpen))
    assert y.shape == (ROWS,) and y_hat.shape == (ROWS, DRAWS)
    pit = (y_hat <= y[:, None]).mean(1)
    assert bool(kstest(pit, "uniform").pvalue > 0.01) is uniform
    if OLD:
        flat = np.full((ROWS, DRAWS), -np.log(DRAWS))
        assert_allclose(arviz.loo_pit(y=y, y_hat=y_hat, log_weights=flat), pit, atol=1e-9)


@pytest.mark.skipif(not OLD, reason=f"arviz {version('arviz')}: plot_loo_pit breaks ties at random itself")
def test_arviz_plots_the_randomised_pit() -> None:
    data = predictions(1.0)
    y, y_hat = randomised_labels(data)
    assert arviz.plot_loo_pit(data, y=y, y_hat=y_hat, ecdf=True).get_figure() is not None
    matplotlib.pyplot.close("all")


def test_reliability_finds_overconfidence() -> None:
    calibrated, sharp = (pav_reliability(predictions(sharpen)) for sharpen in (1.0, 3.0))
    assert list(calibrated) == list(range(CLASSES))
    for index in calibrated:
        assert sharp[index].miscalibration > 2 * calibrated[index].miscalibration
        assert calibrated[index].miscalibration < 0.01


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12))
def test_frequencies_are_the_isotonic_ones(rows: list[tuple[int, bool]]) -> None:
    """The max-min formula of isotonic regression, rows of equal forecast taken together."""
    labels = np.array([int(happened) for _, happened in rows])
    predicted = np.array([[draw < count for count, _ in rows] for draw in range(4)]).astype(int)
    found = pav_reliability(from_draws({"scale": np.zeros(4)}, None, predicted, labels))
    if 1 not in found:
        return
    forecast = predicted.mean(0)
    levels = np.unique(forecast)
    for value, frequency in zip(found[1].forecast, found[1].frequency, strict=True):
        below, above = levels[levels <= value], levels[levels >= value]
        wanted = max(
            min(labels[(forecast >= low) & (forecast <= high)].mean() for high in above) for low in below
        )
        assert abs(frequency - wanted) < 1e-9
