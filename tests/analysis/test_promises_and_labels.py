"""The studies of promises kept and labels saved: on a toy, and their counting by hand."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from small_problems import tiny_task

import bayes_clip as bc
from bayes_clip.evaluation.holdout import hold_out
from bayes_clip.evaluation.verdicts import judge

ANALYSIS = Path(__file__).parents[2] / "analysis"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ANALYSIS))  # as python analysis/x.py does
    return importlib.import_module(name)


def test_labels_needed_by_hand() -> None:
    study = load("labels_saved")
    labels, accuracies = np.array([10, 20, 30, 40]), np.array([0.5, 0.7, 0.6, 0.9])
    assert study.labels_needed(labels, accuracies, 0.4) == 10
    assert study.labels_needed(labels, accuracies, 0.6) == pytest.approx(15)
    assert study.labels_needed(labels, accuracies, 0.7) == pytest.approx(20)
    assert study.labels_needed(labels, accuracies, 0.8) == pytest.approx(35)  # the dip is passed over
    assert np.isnan(study.labels_needed(labels, accuracies, 0.95))


def test_saved_labels_are_paired_by_draw_and_counted_in_full_where_never_reached() -> None:
    study = load("labels_saved")
    curves = {
        ("random", 0): [0.2, 0.4, 0.6],
        ("random", 1): [0.2, 0.6, 0.6],
        ("better", 0): [0.4, 0.6, 0.8],
        ("better", 1): [0.1, 0.2, 0.3],
    }
    table = pd.DataFrame(
        [
            {"task": "toy", "arm": arm, "seed": seed, "labels": labels, "accuracy": value}
            for (arm, seed), values in curves.items()
            for labels, value in zip((10, 20, 30), values, strict=True)
        ]
    )
    found = study.saved(table).set_index(["share", "arm", "seed"])
    assert found.loc[("all", "better", 0), "saved"] == pytest.approx(30 - 20)  # 0.6: at 30 and at 20
    assert found.loc[("all", "better", 1), "needed"] == 30 and found.loc[("all", "better", 1), "never"]
    assert found.loc[("all", "better", 1), "saved"] == pytest.approx(20 - 30)
    assert (found.xs("random", level="arm")["saved"] == 0).all()


def test_every_arm_learns_every_label_once_from_the_same_start() -> None:
    study = load("labels_saved")
    task = tiny_task(classes=3, shots=6, queries=10)
    table = study.study([task], list(study.ARMS), [0, 1], batch=4, shots=4)
    assert set(table["labels"]) == {3, 7, 11, 12}
    first, last = table[table["labels"] == 3], table[table["labels"] == 12]
    assert (first.groupby("seed")["nll"].nunique() == 1).all()
    assert last.groupby("seed")["nll"].nunique().min() > 1
    assert study.summary(table).count("\n") == 1 + len(study.ARMS)
    assert "of the" in study.conclusions(table)
    assert len(study.draw(table).axes) == 1


def test_promises_are_measured_as_predict_says_them() -> None:
    study = load("promises_kept")
    task = tiny_task(classes=3, shots=8, queries=15, ood=True)
    table = study.study([task], [4], [0])
    assert len(table) == 6
    drawn = bc.few_shot(task, 4, 0)
    posterior = bc.fit(drawn).posterior
    held = hold_out(drawn, posterior)
    prediction = posterior.predict(task.query_rows)
    said = judge(prediction, task.class_names, None, held, risk=0.1, false_alarms=0.1).rows
    truth = [task.class_names[label] for label in task.query_labels.tolist()]
    found = table.set_index(["promise", "asked"])["found"]
    assert found["false alarms", 0.1] == pytest.approx(np.mean([row["verdict"] == "out" for row in said]))
    wrong = [row["class"] != name for row, name in zip(said, truth, strict=True) if row["abstained"] == "no"]
    assert found["risk", 0.1] == pytest.approx(np.mean(wrong), nan_ok=True) if wrong else True
    assert study.summary(table).count("\n") == 1 + 6 and "coverage: of 2 cells" in study.conclusions(table)
    assert len(study.draw(table).axes) == 3


def test_a_promise_is_broken_only_beyond_its_interval() -> None:
    study = load("promises_kept")
    assert study.verdict("coverage", 0.9, [0.91, 0.92, 0.9]) == "kept"
    assert study.verdict("coverage", 0.9, [0.80, 0.81, 0.79]) == "BROKEN"
    assert study.verdict("coverage", 0.9, [0.80, 0.99, 0.85]) == "within the interval"
    assert study.verdict("risk", 0.1, [0.2, 0.21, 0.19]) == "BROKEN"
    assert study.verdict("risk", 0.1, [float("nan")]) == "no answers"
