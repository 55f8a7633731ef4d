"""Figures draw the data they are given: values of the lines and bars, not pixels."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.integrate import trapezoid

from bayes_clip.evaluation.metrics import auroc
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.report.calibration_plots import reliability_diagram, risk_coverage_plot
from bayes_clip.report.engine_plots import engine_comparison, shots_curves
from bayes_clip.report.novelty_plots import novelty_histograms
from bayes_clip.report.picture_plots import most_and_least_sure, sure_and_unsure
from bayes_clip.report.style import ENGINE_COLOURS, ENGINE_MARKERS, colour, panels


def titles(figure: Figure) -> list[str]:
    return [axes.get_title("left") or axes.get_title() for axes in figure.axes]


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1.0, 200)
    return confidence, (generator.random(200) < confidence).astype(float)


def test_reliability_draws_points_band_and_counts(scored: tuple[np.ndarray, np.ndarray]) -> None:
    found = reliability(*scored)
    figure = reliability_diagram({"map": found, "ekf": found})
    upper, lower = figure.axes[0], figure.axes[2]  # two panels wide: the second row holds the counts
    filled = found.counts > 0
    diagonal, points = upper.lines
    np.testing.assert_allclose(points.get_xdata(), found.confidence[filled])
    np.testing.assert_allclose(points.get_ydata(), found.accuracy[filled])
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    bars = upper.patches
    np.testing.assert_allclose([bar.get_y() for bar in bars], found.lower)
    np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in bars], found.upper)
    assert [bar.get_height() for bar in lower.patches] == found.counts.tolist()
    assert titles(figure)[1] == f"ekf\nECE {found.ece:.3f}, floor {found.ece_if_calibrated:.3f}"


def test_risk_coverage_draws_the_curve_its_oracle_and_the_others(
    scored: tuple[np.ndarray, np.ndarray],
) -> None:
    ours, other = risk_coverage(*scored), risk_coverage(1 - scored[0], scored[1])
    figure = risk_coverage_plot({"ekf": ours, "map": other})
    pale, oracle, random, curve = figure.axes[0].lines
    np.testing.assert_allclose(curve.get_ydata(), ours.risk)
    np.testing.assert_allclose(oracle.get_ydata(), ours.oracle)
    np.testing.assert_allclose(pale.get_ydata(), other.risk)
    assert set(random.get_ydata()) == {ours.random}
    assert curve.get_color() == ENGINE_COLOURS["ekf"]
    assert titles(figure) == [f"ekf: AURC {ours.aurc:.3f}", f"map: AURC {other.aurc:.3f}"]


def test_long_curves_keep_their_ends() -> None:
    generator = np.random.default_rng(0)
    curve = risk_coverage(generator.random(5000), generator.integers(0, 2, 5000))
    drawn = risk_coverage_plot({"ekf": curve}).axes[0].lines[-1].get_xydata()
    assert len(drawn) == 400
    np.testing.assert_allclose(drawn[[0, -1]], [[1 / 5000, curve.risk[0]], [1.0, curve.risk[-1]]])


def test_novelty_histograms_are_densities_with_the_auroc_in_the_title() -> None:
    generator = np.random.default_rng(0)
    inside, outside = generator.normal(0, 1, 500), generator.normal(4, 1, 200)
    figure = novelty_histograms({"ekf": inside}, {"ekf": outside})
    (axes,) = figure.axes
    assert axes.get_title("left") == f"ekf: AUROC {auroc(inside, outside):.3f}"
    for collection, scores in zip(axes.collections, (inside, outside), strict=True):
        vertices = collection.get_paths()[0].vertices
        assert np.abs(trapezoid(vertices[:, 1], vertices[:, 0])) == pytest.approx(1.0, rel=1e-6)
        heaviest = vertices[vertices[:, 1].argmax(), 0]
        assert heaviest == pytest.approx(np.median(scores), abs=1.0)


def test_novelty_that_never_varies_or_is_infinite_can_be_drawn() -> None:
    assert titles(novelty_histograms({"map": np.zeros(5)}, {"map": np.zeros(3)})) == ["map: AUROC 0.500"]
    assert novelty_histograms({"map": np.zeros(5)}, {"map": np.array([1.0, np.inf])}).axes


def test_engine_comparison_draws_every_seed_and_the_mean() -> None:
    values = {
        "accuracy": {"map": [0.5, 0.7], "ekf": [0.6, 0.8]},
        "ood_auroc": {"map": ["", ""], "ekf": [0.9, 1.0]},
        "fit_seconds": {"map": [0.0, 2.0], "ekf": [1.0, 1.0]},
        "nll": {"map": ["", ""], "ekf": ["", ""]},
    }
    figure = engine_comparison(values, ["map", "ekf"])
    assert [title.split("\n")[0] for title in titles(figure)] == ["Accuracy", "OOD AUROC", "Seconds to fit"]
    accuracy, ood, seconds = figure.axes
    drawn = [(line.get_xdata().tolist(), line.get_ydata()[0]) for line in accuracy.lines]
    assert drawn == [([0.5, 0.7], 0), ([0.6], 0), ([0.6, 0.8], 1), ([pytest.approx(0.7)], 1)]
    assert [line.get_ydata()[0] for line in ood.lines] == [1, 1]
    assert [label.get_text() for label in accuracy.get_yticklabels()] == ["map", "ekf"]
    assert seconds.get_xscale() == "log" and seconds.lines[0].get_xdata()[0] == pytest.approx(1e-3)


def test_shots_curves_draw_means_and_standard_errors() -> None:
    points = {16: (0.9, 0.01), 1: (0.5, 0.02), 4: (0.7, 0.0)}
    figure = shots_curves({"accuracy": {"ekf": points}})
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.5], [4, 0.7], [16, 0.9]]
    bars = axes.collections[0].get_segments()
    np.testing.assert_allclose([bar[:, 1] for bar in bars], [[0.48, 0.52], [0.7, 0.7], [0.89, 0.91]])


def test_most_and_least_sure_are_ordered_and_ties_go_by_entropy() -> None:
    probabilities = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.9, 0.1, 0.0]])
    most, least = most_and_least_sure(probabilities, 2)
    assert most.tolist() == [1, 3] and least.tolist() == [2, 0]
    assert [rows.tolist() for rows in most_and_least_sure(probabilities[:1], 6)] == [[0], [0]]


def test_pictures_come_with_their_three_largest_probabilities() -> None:
    images = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    probabilities = np.array([[0.7, 0.1, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1]] * 2)
    figure = sure_and_unsure(
        images, probabilities, np.array([0, 1, 0, 1]), ["a", "b", "c", "a long name indeed"], 1
    )
    surest, surest_bars, least, least_bars = figure.axes
    np.testing.assert_array_equal(surest.images[0].get_array(), np.moveaxis(images[0], 0, -1))
    assert surest.get_title() == "is a"
    assert [bar.get_width() for bar in surest_bars.patches[3:]] == [0.7, 0.15, 0.1]
    assert [text.get_text() for text in surest_bars.texts] == ["a", "0.70", "c", "0.15", "b", "0.10"]
    # rows 1 and 3 are equally unsure, and wrong: the frame says so, and green marks the true class
    assert least.get_title() == "is b" and least.spines["left"].get_linewidth() == 3.0
    shades = [to_hex(bar.get_facecolor()) for bar in least_bars.patches[3:]]
    assert shades[0] == shades[2] != shades[1]


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3))])
def test_panels_fill_rows(count: int, shape: tuple[int, int]) -> None:
    figure, stacks = panels(count, (3.0, 2.0), ratios=(2.0, 1.0))
    assert len(stacks) == count and len(figure.axes) == 2 * count
    assert tuple(figure.get_size_inches()) == (3.0 * shape[1], 2.0 * shape[0])


def test_engines_differ_in_colour_and_in_marker() -> None:
    assert len(set(ENGINE_COLOURS.values())) == len(ENGINE_COLOURS)
    assert len(set(ENGINE_MARKERS.values())) == len(ENGINE_MARKERS)
    assert ENGINE_COLOURS.keys() == ENGINE_MARKERS.keys()
    assert colour("ekf · full") == colour("ekf") != colour("something new")
