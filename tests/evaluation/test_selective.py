"""Risk-coverage curves against brute force, and thresholds that keep what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bayes_clip.evaluation.selective import aurc, risk_coverage, threshold_for_risk

scored = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30)


def test_curve_equals_counting_the_most_confident_rows() -> None:
    confidence, correct = np.array([0.9, 0.5, 0.8, 0.6]), np.array([1.0, 0.0, 0.0, 1.0])
    curve = risk_coverage(confidence, correct)
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0.0, 1 / 2, 1 / 3, 1 / 2])
    np.testing.assert_allclose(curve.oracle, [0.0, 0.0, 1 / 3, 1 / 2])
    assert curve.random == 0.5
    assert curve.aurc == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.excess_aurc == pytest.approx(1 / 8)


@given(scored, st.randoms())
@settings(max_examples=60, deadline=None)
def test_curve_lies_above_the_oracle_and_ignores_the_order_of_rows(rows: list, random: object) -> None:
    curve = risk_coverage(*zip(*rows, strict=True))
    assert (curve.risk >= curve.oracle - 1e-12).all()
    assert curve.risk[-1] == pytest.approx(curve.random, abs=1e-12)
    assert curve.oracle[-1] == pytest.approx(curve.random, abs=1e-12)
    random.shuffle(rows)  # type: ignore[attr-defined]
    np.testing.assert_allclose(risk_coverage(*zip(*rows, strict=True)).risk, curve.risk, atol=1e-12)


def test_one_confidence_for_all_is_a_random_order() -> None:
    correct = np.array([1.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(risk_coverage(np.ones(4), correct).risk, 0.25)
    assert aurc(np.ones(4), correct) == 0.25


@given(scored, st.floats(0.0, 1.0), st.sampled_from([None, 0.5, 0.95]))
@settings(max_examples=80, deadline=None)
def test_threshold_has_the_largest_coverage(rows: list, risk: float, level: float | None) -> None:
    confidence, correct = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    chosen = threshold_for_risk(confidence, correct, risk, level)
    answered = confidence >= chosen.threshold
    assert chosen.coverage == pytest.approx(answered.mean())
    assert chosen.bound <= risk
    if answered.any():
        assert chosen.risk == pytest.approx(1 - correct[answered].mean())
    if level is None:
        for threshold in confidence:
            at = confidence >= threshold
            if at.mean() > chosen.coverage:
                assert 1 - correct[at].mean() > risk


def test_bound_is_the_binomial_one_shared_over_the_thresholds_tried() -> None:
    # three thresholds; at the first, 2 errors in 50
    confidence = np.repeat([0.9, 0.6, 0.3], [50, 25, 25])
    correct = np.concatenate([np.repeat([0.0, 1.0], [2, 48]), np.zeros(50)])
    chosen = threshold_for_risk(confidence, correct, risk=0.2, confidence_level=0.95)
    assert chosen.coverage == 0.5 and chosen.risk == pytest.approx(0.04)
    # at an error rate equal to the bound, so few errors would be seen with chance 0.05 / 3
    assert binom.cdf(2, 50, chosen.bound) == pytest.approx(0.05 / 3, rel=1e-6)


def test_bound_holds_on_new_rows_about_as_often_as_stated() -> None:
    generator = np.random.default_rng(0)
    broken = 0
    for _ in range(300):
        confidence = generator.uniform(0.3, 1.0, 300)
        correct = (generator.random(300) < confidence).astype(float)
        chosen = threshold_for_risk(confidence, correct, risk=0.2, confidence_level=0.9)
        if chosen.coverage > 0:
            true_risk = 1 - (chosen.threshold + 1.0) / 2  # mean error of a uniform confidence above it
            broken += true_risk > 0.2
    assert broken <= 30


def test_unseen_errors_keep_the_risk_on_new_rows_where_the_empirical_rate_does_not() -> None:
    """Few rows, errors at every confidence: the mean error of the answers given, over many draws."""
    generator, risk, draws = np.random.default_rng(0), 0.2, 1500
    found: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(draws):
        confidence = generator.uniform(0.3, 1.0, 20)
        correct = (generator.random(20) < confidence).astype(float)
        for unseen, errors in found.items():
            chosen = threshold_for_risk(confidence, correct, risk, unseen_errors=unseen)
            if chosen.coverage > 0:
                errors.append(1 - (max(chosen.threshold, 0.3) + 1.0) / 2)
    assert np.mean(found[0]) > risk > np.mean(found[1])
    rows, error = [0.9, 0.8, 0.7], 1
    assert threshold_for_risk(rows, [1.0, 1.0, 1.0], 0.25, unseen_errors=error).coverage == 1.0
    assert threshold_for_risk(rows, [1.0, 1.0, 1.0], 0.24, unseen_errors=error).coverage == 0.0


def test_no_threshold_will_do() -> None:
    chosen = threshold_for_risk([0.9, 0.8], [0.0, 0.0], risk=0.1)
    assert chosen.threshold == np.inf and chosen.coverage == 0.0
    assert threshold_for_risk([0.9], [1.0], risk=0.1, confidence_level=0.95).coverage == 0.0


@pytest.mark.parametrize(("risk", "level"), [(-0.1, None), (1.1, None), (0.1, 1.0), (0.1, 0.0)])
def test_risks_and_levels_out_of_range_are_refused(risk: float, level: float | None) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        threshold_for_risk([0.9], [1.0], risk, level)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(M,\)"):
        risk_coverage([0.9, 0.8], [1.0])
