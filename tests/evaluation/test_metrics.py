"""Metrics against independent short formulas, scikit-learn, and what must hold for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, roc_curve

from bayes_clip.evaluation import metrics


def draw(seed: int, rows: int = 200, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.3), rows)
    labels = np.array([generator.choice(classes, p=row) for row in probabilities])
    return probabilities, labels


def naive_ece(claimed: np.ndarray, observed: np.ndarray, bins: int = 15) -> float:
    total = 0.0
    for k in range(bins):
        last = k == bins - 1
        rows = [i for i, c in enumerate(claimed) if k / bins <= c and (c < (k + 1) / bins or last)]
        if rows:
            total += len(rows) / len(claimed) * abs(np.mean(claimed[rows]) - np.mean(observed[rows]))
    return total


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_nll_equal_scikit_learn(seed: int) -> None:
    probabilities, labels = draw(seed)
    assert metrics.accuracy(probabilities, labels) == accuracy_score(labels, probabilities.argmax(1))
    expected = log_loss(labels, probabilities, labels=range(5))
    assert metrics.nll(probabilities, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_brier_and_calibration_errors_equal_their_definitions(seed: int) -> None:
    probabilities, labels = draw(seed)
    of_rows = [
        sum((p - (k == labels[i])) ** 2 for k, p in enumerate(row)) for i, row in enumerate(probabilities)
    ]
    assert metrics.brier(probabilities, labels) == pytest.approx(np.mean(of_rows), rel=1e-12)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    assert metrics.ece(probabilities, labels) == pytest.approx(naive_ece(confidence, correct), abs=1e-12)
    of_classes = [naive_ece(probabilities[:, k], labels == k) for k in range(5)]
    assert metrics.classwise_ece(probabilities, labels) == pytest.approx(np.mean(of_classes), abs=1e-12)
    groups = np.array_split(np.argsort(confidence), 15)
    adaptive = sum(abs(confidence[g].mean() - correct[g].mean()) * len(g) / 200 for g in groups)
    assert metrics.adaptive_ece(probabilities, labels) == pytest.approx(adaptive, abs=1e-12)


def test_certain_predictions_are_counted_in_the_last_bin() -> None:
    probabilities = np.array([[1.0, 0.0], [0.95, 0.05]])
    assert metrics.bin_index([0.0, 1 / 15, 0.999, 1.0]).tolist() == [0, 1, 14, 14]
    # both rows share the last bin: |mean confidence 0.975 - accuracy 0.5|
    assert metrics.ece(probabilities, np.array([0, 1])) == pytest.approx(0.475, abs=1e-12)


def test_probability_zero_of_the_label_costs_a_finite_amount() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert metrics.nll(probabilities, np.array([0, 0])) == 0.0
    worst = -np.log(np.finfo(np.float64).tiny) / 2
    assert metrics.nll(probabilities, np.array([0, 1])) == pytest.approx(worst)
    assert metrics.brier(probabilities, np.array([0, 1])) == 1.0


def test_perfect_and_hopeless_predictions() -> None:
    labels = np.arange(4)
    assert metrics.ece(np.eye(4), labels) == metrics.adaptive_ece(np.eye(4), labels) == 0.0
    assert metrics.classwise_ece(np.eye(4), labels) == metrics.brier(np.eye(4), labels) == 0.0
    wrong = np.roll(np.eye(4), 1, axis=1)
    assert metrics.ece(wrong, labels) == metrics.adaptive_ece(wrong, labels) == 1.0
    assert metrics.brier(wrong, labels) == 2.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_order_of_rows_and_names_of_classes_do_not_matter(seed: int, rows: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    # coarse probabilities, so that ties and exact 0 and 1 are common
    counts = generator.multinomial(4, np.full(classes, 1 / classes), rows)
    probabilities, labels = counts / 4.0, generator.integers(0, classes, rows)
    order, names = generator.permutation(rows), generator.permutation(classes)
    for metric in (metrics.nll, metrics.brier, metrics.classwise_ece):
        expected = metric(probabilities, labels)
        renamed = metric(probabilities[order][:, np.argsort(names)], names[labels][order])
        assert renamed == pytest.approx(expected, abs=1e-12)
    for metric in (metrics.accuracy, metrics.ece, metrics.adaptive_ece):
        assert metric(probabilities[order], labels[order]) == pytest.approx(
            metric(probabilities, labels), abs=1e-12
        )
        assert 0.0 <= metric(probabilities, labels) <= 1.0


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40), st.lists(st.integers(0, 6), min_size=1, max_size=40)
)
@settings(max_examples=80, deadline=None)
def test_auroc_and_fpr_equal_scikit_learn_with_ties(inside: list[int], outside: list[int]) -> None:
    is_outside = [0] * len(inside) + [1] * len(outside)
    scores = np.array(inside + outside, dtype=float)
    assert metrics.auroc(inside, outside) == pytest.approx(roc_auc_score(is_outside, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(1 - np.array(is_outside), -scores, drop_intermediate=False)
    accepted = np.round(tpr * len(inside)).astype(int) * 100 >= 95 * len(inside)
    assert metrics.fpr_at_95_tpr(inside, outside) == pytest.approx(fpr[accepted][0], abs=1e-12)


def test_auroc_is_that_of_the_order_alone() -> None:
    generator = np.random.default_rng(1)
    inside, outside = generator.normal(size=50), generator.normal(1.0, 1.0, 30)
    assert metrics.auroc(np.exp(inside), np.exp(outside)) == metrics.auroc(inside, outside)
    assert metrics.auroc(outside, inside) == pytest.approx(1 - metrics.auroc(inside, outside), abs=1e-12)
    assert metrics.auroc([0, 1], [2, np.inf]) == 1.0
    assert metrics.fpr_at_95_tpr(np.arange(100), [93.5, 94.0, 94.5]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("probabilities", "labels", "complaint"),
    [
        ([[0.5, 0.5]], [0, 1], "must be"),
        ([[0.5, 1.5]], [0], r"\[0, 1\]"),
        ([[np.nan, 0.5]], [0], r"\[0, 1\]"),
        ([[0.5, 0.5]], [2], r"\[0, 2\)"),
        ([[0.5, 0.5]], [0.0], "integers"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "M > 0"),
    ],
)
def test_what_does_not_fit_is_refused(probabilities: list, labels: list, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        metrics.nll(probabilities, labels)


def test_missing_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        metrics.auroc([1.0], [])
    with pytest.raises(ValueError, match="inside"):
        metrics.fpr_at_95_tpr([np.nan], [1.0])
