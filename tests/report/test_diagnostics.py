"""The diagnostic figures draw the data they are given: values of lines, points and bars, not pixels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import chi2

from bayes_clip.evaluation.metrics import auroc, classwise_ece, fpr_at_95_tpr
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.report.change_plots import label_changes
from bayes_clip.report.classwise_plots import BINS, classwise_reliability, of_classes
from bayes_clip.report.marginal_plots import distances, marginals
from bayes_clip.report.novelty_plots import novelty_roc, roc
from bayes_clip.report.prior_plots import prior_variance_profile
from bayes_clip.report.stream_plots import autocorrelation, course_of, innovation_course, prequential_curve
from bayes_clip.report.style import ENGINE_COLOURS
from bayes_clip.report.tradeoff_plots import beaten_by, on_front, tradeoff
from bayes_clip.report.uncertainty_plots import Doubt, confidence_against_epistemic


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_classwise_grid_draws_every_class_against_the_rest(generator: np.random.Generator) -> None:
    probabilities = generator.dirichlet([0.01, 0.01, 0.01], 60)  # nearly sure: many bins are empty
    labels = generator.integers(0, 3, 60)
    found = of_classes(probabilities, labels, ["same", "same", "other"])
    assert all((one.counts == 0).any() for one in found.values())
    assert list(found) == ["same (0)", "same (1)", "other"]
    own = np.mean([one.ece for one in found.values()])
    assert own == pytest.approx(classwise_ece(probabilities, labels, BINS), abs=1e-12)
    figure = classwise_reliability(found, "ekf")
    for axes, one, k in zip(figure.axes, found.values(), range(3), strict=True):
        naive = reliability(probabilities[:, k], labels == k, BINS)
        filled = naive.counts > 0
        points = axes.collections[0].get_offsets()
        np.testing.assert_allclose(points, np.stack([naive.confidence, naive.accuracy], 1)[filled])
        np.testing.assert_allclose([bar.get_height() for bar in axes.patches], one.upper - one.lower)
    areas = figure.axes[0].collections[0].get_sizes()
    counts = found["same (0)"].counts
    assert areas[counts[counts > 0].argmax()] == areas.max()


def test_of_many_classes_those_that_are_worst_for_their_size_are_shown(
    generator: np.random.Generator,
) -> None:
    probabilities = generator.dirichlet(np.ones(5), 500)
    labels = np.array([generator.choice(5, p=row) for row in probabilities])
    probabilities = probabilities[:, [0, 1, 3, 2, 4]]  # two classes are taken for one another
    assert set(of_classes(probabilities, labels, list("abcde"), most=2)) == {"c", "d"}


def test_doubts_are_drawn_by_right_and_wrong_and_finding_errors_is_an_auroc(
    generator: np.random.Generator,
) -> None:
    confidence, epistemic = generator.uniform(0.2, 1, 80), generator.gamma(1.0, 0.1, 80)
    correct = (generator.random(80) < confidence).astype(float)
    doubt = Doubt(confidence, correct, epistemic)
    right, wrong = confidence_against_epistemic({"ekf": doubt}).axes[0].collections
    pairs = np.stack([confidence, epistemic], 1)
    np.testing.assert_allclose(right.get_offsets(), pairs[correct > 0])
    np.testing.assert_allclose(wrong.get_offsets(), pairs[correct == 0])
    naive = np.mean(
        [float(e > i) + 0.5 * float(e == i) for e in epistemic[correct == 0] for i in epistemic[correct > 0]]
    )
    assert doubt.finds_errors[0] == pytest.approx(naive)
    assert np.isnan(Doubt(confidence, np.ones(80), epistemic).finds_errors).all()


def test_roc_has_the_area_of_the_auroc_also_with_ties_and_infinities(
    generator: np.random.Generator,
) -> None:
    inside, outside = generator.integers(0, 6, 90).astype(float), generator.integers(3, 9, 40).astype(float)
    outside[0] = np.inf
    false_alarms, found = roc(inside, outside)
    assert trapezoid(found, false_alarms) == pytest.approx(auroc(inside, outside))
    figure = novelty_roc({"map": inside, "ekf": inside}, {"map": outside, "ekf": outside + 1})
    _, line, point, *_ = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), np.stack([false_alarms, found], 1))
    assert point.get_xydata().tolist() == [[0.05, pytest.approx(1 - fpr_at_95_tpr(inside, outside))]]
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[1] == f"map: {auroc(inside, outside):.3f}"


def steps(nis: list[float], scores: list[float], rows: int = 5, freedom: int = 10) -> list:
    made = [
        SimpleNamespace(
            rows=rows,
            nis=torch.tensor(n),
            degrees_of_freedom=freedom,
            prequential_score=torch.tensor(s),
        )
        for n, s in zip(nis, scores, strict=True)
    ]
    return made


def test_a_stream_is_drawn_batch_by_batch_and_on_the_average_so_far(generator: np.random.Generator) -> None:
    nis, scores = generator.chisquare(10, 12), -generator.gamma(5.0, 1.0, 12)
    course = course_of(steps(nis.tolist(), scores.tolist()))
    assert course.labels.tolist() == list(range(5, 65, 5))
    axes = prequential_curve({"ekf": course}, num_classes=10).axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets()[:, 1], -scores / 5, rtol=1e-6)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), -scores.cumsum() / course.labels, rtol=1e-6)
    assert axes.lines[1].get_ydata()[0] == pytest.approx(np.log(10))


def test_innovations_are_drawn_with_their_band_and_their_whiteness(generator: np.random.Generator) -> None:
    nis = generator.chisquare(10, 24)
    course = course_of(steps(nis.tolist(), [-1.0] * 24))
    left, right = innovation_course(course).axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), nis / 10, rtol=1e-6)
    np.testing.assert_allclose(left.lines[2].get_ydata()[-1], nis.mean() / 10, rtol=1e-6)
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([band.min(), band.max()], chi2.ppf([0.025, 0.975], 10) / 10)
    naive = [float(np.corrcoef(nis, nis)[0, 1])]
    assert naive[0] == pytest.approx(1)
    centred = nis / 10 - nis.mean() / 10
    expected = [sum(centred[i] * centred[i + k] for i in range(24 - k)) / (centred**2).sum() for k in (1, 2)]
    bars = [bar.get_height() for bar in right.patches[-6:]]
    np.testing.assert_allclose(bars[:2], expected, rtol=1e-5)
    assert len(course.correlation) == 6 and course.limit == pytest.approx(1.96 / 24**0.5)


def test_short_constant_or_missing_streams() -> None:
    assert autocorrelation(np.ones(8), 2).tolist() == [0.0, 0.0]
    assert innovation_course(course_of(steps([1.0], [-1.0]))).axes
    with pytest.raises(ValueError, match="no steps"):
        course_of([])


def test_marginals_are_histograms_of_the_yardstick_and_densities_of_the_others(
    generator: np.random.Generator,
) -> None:
    draws = {"nuts": generator.normal(size=(4000, 2)), "ekf": generator.normal([0.0, 2.0], 1.0, (3000, 2))}
    away = distances(draws)["ekf"]
    assert away[0] < 0.1 and away[1] == pytest.approx(2.0, abs=0.1)
    figure = marginals(draws, ["first", "second"])
    for axes, centre in zip(figure.axes, (0.0, 2.0), strict=True):
        (curve,) = axes.lines
        assert trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(1.0, abs=0.02)
        assert curve.get_xdata()[curve.get_ydata().argmax()] == pytest.approx(centre, abs=0.25)
        outline = axes.collections[0].get_paths()[0].vertices
        assert abs(trapezoid(outline[:, 1], outline[:, 0])) == pytest.approx(1.0, rel=1e-6)
    assert figure.axes[1].get_title("left") == f"second\naway: ekf {away[1]:.2f}"
    with pytest.raises(ValueError, match="no draws of nuts"):
        marginals({"ekf": draws["ekf"]}, ["first", "second"])
    with pytest.raises(ValueError, match="same Q"):
        distances({"nuts": draws["nuts"], "ekf": draws["ekf"][:, :1]})


def test_prior_variance_profile_draws_what_is_above_the_lowest() -> None:
    profile = {"folds": {0.1: 2.0, 0.01: 1.5, 1.0: 1.75}, "evidence": {}, "test": {0.1: 0.5, 0.01: 0.75}}
    axes = prior_variance_profile(profile, chosen=0.01).axes[0]
    folds, best, test, best_test, chosen = axes.lines
    assert folds.get_xydata().tolist() == [[0.01, 0.0], [0.1, 0.5], [1.0, 0.25]]
    assert best.get_xydata().tolist() == [[0.01, 0.0]] and best_test.get_xdata()[0] == 0.1
    assert test.get_xydata().tolist() == [[0.01, 0.25], [0.1, 0.0]] and chosen.get_xdata()[0] == 0.01


POINTS = {
    "zero_shot": {"nll": 1.0, "ece": 0.2, "fit_seconds": 0.0},
    "map": {"nll": 0.5, "ece": 0.1, "fit_seconds": 1.0},
    "ekf": {"nll": 0.4, "ece": 0.15, "fit_seconds": 1.0},
    "vi": {"nll": 0.5, "ece": 0.15, "fit_seconds": 9.0},
}


def test_the_front_holds_what_nothing_beats(generator: np.random.Generator) -> None:
    assert beaten_by(POINTS) == {"vi": ["map", "ekf"]}
    values = generator.integers(0, 4, (40, 3)).astype(float)
    naive = [not any((other <= own).all() and (other < own).any() for other in values) for own in values]
    assert on_front(values).tolist() == naive


def test_tradeoff_draws_every_arm_and_fills_those_on_the_front() -> None:
    left, right = tradeoff(POINTS).axes
    front, *dots = left.lines
    assert front.get_xydata().tolist() == [[1e-3, 1.0], [1.0, 0.4]]
    assert [dot.get_xydata()[0].tolist() for dot in dots] == [[1e-3, 1.0], [1.0, 0.5], [1.0, 0.4], [9.0, 0.5]]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, False, True]
    assert [dot.get_ydata()[0] for dot in right.lines[1:]] == [0.2, 0.1, 0.15, 0.15]
    assert dots[2].get_color() == ENGINE_COLOURS["ekf"]


def test_many_arms_are_numbered_and_named_at_the_side() -> None:
    many = {f"ekf · model {k}": {"nll": 1.0 + k, "ece": 0.1 * k, "fit_seconds": 9.0 - k} for k in range(8)}
    figure = tradeoff(many)
    assert {text.get_text() for text in figure.axes[0].texts} == {str(k + 1) for k in range(8)}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        f"{k + 1}  {name}" for k, name in enumerate(many)
    ]
    assert {text.get_text() for text in tradeoff(POINTS).axes[0].texts} == set(POINTS)


def test_changes_draw_every_class_thick_where_true_with_a_dot_where_taught(
    generator: np.random.Generator,
) -> None:
    probabilities = generator.dirichlet(np.ones(6), (5, 2))
    figure = label_changes(probabilities, list("abcdef"), [0, 3, 0, 1], truths=[5, 0], titles=["one", "two"])
    for picture, (axes, truth) in enumerate(zip(figure.axes, (5, 0), strict=True)):
        curves = {
            tuple(line.get_ydata()): line.get_linewidth() for line in axes.lines if len(line.get_ydata()) == 5
        }
        assert set(curves) >= {tuple(probabilities[:, picture, k]) for k in range(6)}
        assert max(curves, key=lambda key: curves[key]) == tuple(probabilities[:, picture, truth])
    dots = [line.get_xdata().tolist() for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert [1, 3] in dots
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["none", "a", "d", "a", "b"]
    with pytest.raises(ValueError, match="4 labels"):
        label_changes(probabilities[1:], list("abcdef"), [0, 3, 0, 1])
