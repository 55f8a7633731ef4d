"""Reliability bins, the exact consistency band, and the calibration error of a calibrated model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.calibration import calibration_curve

from bayes_clip.evaluation.metrics import binned_gap
from bayes_clip.evaluation.reliability import central_interval, poisson_binomial, reliability

confidences = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9)


def calibrated(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.2, 1.0, rows)
    return confidence, (generator.random(rows) < confidence).astype(float)


def test_bins_equal_scikit_learn() -> None:
    confidence, correct = calibrated(500)
    found = reliability(confidence, correct)
    share_correct, mean_confidence = calibration_curve(correct, confidence, n_bins=15)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], share_correct, atol=1e-12)
    np.testing.assert_allclose(found.confidence[filled], mean_confidence, atol=1e-12)
    assert found.counts.sum() == 500 and found.edges.tolist() == np.linspace(0, 1, 16).tolist()
    assert np.isnan(found.lower[~filled]).all() and np.isnan(found.accuracy[~filled]).all()
    assert found.ece == pytest.approx(binned_gap(confidence, correct), abs=1e-12)


@given(confidences)
@settings(max_examples=50, deadline=None)
def test_number_of_successes_equals_enumerating_every_outcome(chances: list[float]) -> None:
    expected = np.zeros(len(chances) + 1)
    for outcome in itertools.product([0, 1], repeat=len(chances)):
        each = [c if hit else 1 - c for c, hit in zip(chances, outcome, strict=True)]
        expected[sum(outcome)] += np.prod(each)
    np.testing.assert_allclose(poisson_binomial(chances), expected, atol=1e-12)


@pytest.mark.parametrize(("rows", "chance"), [(1, 0.3), (37, 0.8), (300, 0.2), (2000, 0.97), (50, 0.01)])
def test_equal_chances_give_the_binomial(rows: int, chance: float) -> None:
    found = poisson_binomial(np.full(rows, chance))
    np.testing.assert_allclose(found, binom.pmf(np.arange(rows + 1), rows, chance), atol=1e-11)
    interval = central_interval(found, 0.95).tolist()
    assert interval == [binom.ppf(0.025, rows, chance), binom.ppf(0.975, rows, chance)]


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_certain_confidences_leave_no_room(certain: float) -> None:
    found = reliability([certain] * 6, [certain] * 6)
    at = 14 if certain else 0
    assert found.counts[at] == 6
    assert found.lower[at] == found.upper[at] == found.accuracy[at] == certain
    assert found.ece == found.ece_if_calibrated == 0.0
    wrong = reliability([certain] * 6, [1 - certain] * 6)
    assert wrong.ece == 1.0 and wrong.ece_if_calibrated == 0.0


def test_band_holds_a_calibrated_model_and_not_an_overconfident_one() -> None:
    inside = bins = 0
    gaps, floors = [], []
    for seed in range(200):
        found = reliability(*calibrated(300, seed))
        filled = found.counts > 0
        accuracy = found.accuracy[filled]
        inside += int(((found.lower[filled] <= accuracy) & (accuracy <= found.upper[filled])).sum())
        bins += int(filled.sum())
        gaps.append(found.ece)
        floors.append(found.ece_if_calibrated)
    assert 0.95 <= inside / bins < 0.99  # discrete counts make the band a little wider than its level
    assert np.mean(gaps) == pytest.approx(np.mean(floors), rel=0.05)
    overconfident = reliability(np.full(200, 0.95), np.repeat([1.0, 0.0], 100))
    assert overconfident.accuracy[14] < overconfident.lower[14]


@given(confidences, st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_bands_are_ordered_and_contain_the_mean(chances: list[float], seed: int) -> None:
    correct = np.random.default_rng(seed).integers(0, 2, len(chances)).astype(float)
    wide, narrow = reliability(chances, correct, level=0.99), reliability(chances, correct, level=0.5)
    filled = wide.counts > 0
    assert (wide.lower[filled] <= narrow.lower[filled]).all()
    assert (narrow.lower[filled] <= narrow.upper[filled]).all()
    assert (narrow.upper[filled] <= wide.upper[filled]).all()
    assert 0.0 <= wide.ece_if_calibrated <= 0.5 and 0.0 <= wide.ece <= 1.0


def test_confidences_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="lie in"):
        reliability([1.2], [1.0])
    with pytest.raises(ValueError, match=r"\(M,\)"):
        reliability([0.2, 0.3], [1.0])
