"""The studies of wrong labels and of unequal numbers of labels, on a made task."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import bayes_clip as bc
from bayes_clip.data.task import make_task

ANALYSIS = Path(__file__).parents[2] / "analysis"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ANALYSIS))  # as python analysis/x.py does
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def task() -> bc.Task:
    generator = np.random.default_rng(0)
    centres, labels = np.eye(4, 8), np.repeat(np.arange(4), 8)
    rows, queries = (centres[labels] + 0.2 * generator.normal(size=(32, 8)) for _ in range(2))
    return make_task("made", rows, labels, queries, labels, text_features=centres + 0.1, logit_scale=20.0)


def test_flips_are_as_many_as_said_and_mostly_found(task: bc.Task) -> None:
    label_noise = load("label_noise")
    flipped, wrong = label_noise.flipped(task, 0.1, 0)
    assert wrong.sum() == 3
    assert ((flipped.support_labels != task.support_labels).numpy() == wrong).all()
    table = label_noise.study([task], [8], [0])
    noisy = table[table["flipped"] == 0.1].iloc[0]
    assert noisy["precision"] > 0.7 and noisy["recall"] > 0.6 and noisy["average_precision"] > 0.8
    assert table[table["flipped"] == 0.0].iloc[0]["false_flags"] < 0.1
    assert len(label_noise.summary(table).splitlines()) == 2 + len(label_noise.SHARES)


def test_half_of_the_classes_are_rare(task: bc.Task) -> None:
    unequal_shots = load("unequal_shots")
    drawn, rare = unequal_shots.unequal(task, 0, most=6)
    assert sorted(np.bincount(drawn.support_labels).tolist()) == [1, 1, 6, 6] and rare.sum() == 2
    posterior = bc.fit(drawn, bc.FitSettings(engine="map", class_prior="even")).posterior
    found = unequal_shots.measured(posterior, drawn, rare)
    assert found["mean"] == pytest.approx((found["rare"] + found["frequent"]) / 2)
