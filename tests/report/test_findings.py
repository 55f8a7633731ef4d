"""What captions conclude follows the numbers, good or bad."""

from __future__ import annotations

import numpy as np

from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.report import findings
from bayes_clip.report.uncertainty_plots import Doubt


def test_who_leads_is_named_metric_by_metric() -> None:
    means = {
        "accuracy": {"map": 0.7, "ekf": 0.8},
        "nll": {"map": 0.9, "ekf": 0.8},
        "ece": {"map": 0.03, "ekf": 0.04},
    }
    assert findings.of_engines(means) == (
        "ekf has the highest accuracy (0.800) and the lowest NLL (0.800) and map has the lowest ECE (0.030)."
    )


def test_curves_say_where_they_lead() -> None:
    curves = {"map": {1: 2.0, 4: 0.5}, "ekf": {1: 1.5, 4: 1.6}}
    said = findings.of_shots(curves, "ekf")
    assert "the NLL of ekf rises from 1.500 to 1.600" in said
    assert said.endswith("the lowest NLL is that of ekf at 1, and of map at 4.")
    assert "map has the lowest NLL at both ends" in findings.of_shots({"map": {1: 2.0, 4: 0.5}}, "map")


def test_calibration_is_told_by_its_floor() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 0.95, 4000)
    right = (generator.random(4000) < confidence).astype(float)
    said = findings.of_reliability(
        {
            "ekf": reliability(confidence, right),
            "map": reliability(np.minimum(confidence + 0.05, 1), right),
            "vi": reliability(confidence - 0.2, right),
        }
    )
    assert said.startswith("ekf can be taken at its word; too sure on the whole: map (by 5")
    assert "not sure enough: vi (by 19" in said
    classes = {"one": reliability(confidence, right), "two": reliability(confidence - 0.2, right)}
    assert findings.of_classes(classes).startswith("1 of the 2 classes") and "is two" in findings.of_classes(
        classes
    )


def test_silence_names_the_best_half() -> None:
    sure = risk_coverage(np.arange(8.0), np.array([0, 0, 1, 1, 1, 1, 1, 1.0]))
    wild = risk_coverage(-np.arange(8.0), np.array([0, 0, 1, 1, 1, 1, 1, 1.0]))
    said = findings.of_silence({"map": wild, "ekf": sure})
    assert said.startswith(
        "Of the half of the images it is surest of, ekf names 0.0% wrong, of all of them 25.0%"
    )


def test_doubts_say_which_alarm_is_better() -> None:
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    doubt = Doubt(confidence, right, np.array([0.0, 1.0, 0.0, 1.0]))
    expected = "For ekf epistemic doubt finds errors better than low confidence (1.00 against 0.75)."
    assert findings.of_doubts({"ekf": doubt}) == expected
    same = Doubt(confidence, right, -confidence)
    assert "both doubts find errors equally well" in findings.of_doubts({"ekf": same})
    assert "makes no errors" in findings.of_doubts({"ekf": Doubt(confidence, np.ones(4), confidence)})


def test_novelty_names_who_is_blind() -> None:
    inside, outside = np.arange(100.0), np.arange(100.0) + 200
    said = findings.of_novelty({"map": inside, "ekf": inside}, {"map": inside, "ekf": outside})
    assert "ekf tells outside images best from test images (AUROC 1.000)" in said
    assert "keeps out 100.0%" in said and said.endswith("no better than guessing: map.")


def test_tradeoff_tells_who_is_beaten_and_by_whom() -> None:
    points = {
        "map": {"nll": 0.5, "ece": 0.1, "fit_seconds": 1.0},
        "vi": {"nll": 0.6, "ece": 0.2, "fit_seconds": 9.0},
    }
    assert findings.of_tradeoff(points).endswith("than map. Beaten in all three: vi (by map).")
    assert findings.of_tradeoff({"map": points["map"]}).endswith("each has something to offer.")


def test_pictures_are_counted_and_long_lists_cut() -> None:
    assert findings.of_pictures([True, True], [False, False]) == (
        "Of the 2 it is surest of, none is wrong; of the 2 it is least sure of, 2 are."
    )
    assert findings.listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
