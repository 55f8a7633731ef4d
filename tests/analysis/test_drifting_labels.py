"""The study of drifting labels: no choice knows labels yet to come, and classes turn as they should."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from small_problems import assert_near, tiny_task

import bayes_clip as bc


@pytest.fixture(scope="module")
def study() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))  # as python analysis/x.py does
    return importlib.import_module("drifting_labels")


@pytest.fixture(scope="module")
def turning(study: ModuleType) -> ModuleType:
    return importlib.import_module("turning_classes")


@pytest.fixture(scope="module")
def task() -> bc.Task:
    return tiny_task(classes=3, features=6, shots=6, queries=6)


def test_the_leader_is_followed_without_looking_ahead(study: ModuleType) -> None:
    losses = np.random.default_rng(0).random((4, 12))
    found = study.chosen(losses)
    for step in range(12):
        leader = int(losses[:, :step].sum(1).argmin()) if step else 0
        assert found[step] == losses[leader, step]
    changed = losses.copy()
    changed[:, 7:] = 1 - changed[:, 7:]
    assert (study.chosen(changed)[:7] == found[:7]).all()
    kept = study.chosen(losses, until=5)
    assert (kept[5:] == losses[losses[:, :5].sum(1).argmin(), 5:]).all()


def test_the_mixture_loses_little_to_the_best_and_does_not_look_ahead(study: ModuleType) -> None:
    losses = 5 * np.random.default_rng(1).random((6, 9))
    found = study.averaged(losses)
    for step in range(9):
        weights = np.exp(-losses[:, :step].sum(1))
        wanted = -np.log((weights * np.exp(-losses[:, step])).sum() / weights.sum())
        assert found[step] == pytest.approx(wanted, abs=1e-9)
    best = losses.sum(1).min()
    assert best <= found.sum() <= best + np.log(6)


def test_classes_turn_towards_the_next_and_keep_their_length(turning: ModuleType, task: bc.Task) -> None:
    rows = torch.cat([task.support_features, task.query_features])
    labels = torch.cat([task.support_labels, task.query_labels])
    order = torch.arange(len(rows))
    still = turning.turned_features(task, order, torch.zeros(len(rows)))
    assert_near(still, rows, 1e-6)
    turned = turning.turned_features(task, order, torch.full((len(rows),), 90.0))
    assert_near(turned.norm(dim=-1), rows.norm(dim=-1), 1e-5)
    means = torch.stack([rows[labels == label].mean(0) for label in range(3)])
    moved = torch.stack([turned[labels == label].mean(0) for label in range(3)])
    assert float(torch.cosine_similarity(means, moved).abs().max()) < 1e-5
    assert (torch.cosine_similarity(moved, means.roll(-1, dims=0)) > 0.5).all()


def test_angles_turn_slowly_or_at_once(turning: ModuleType) -> None:
    assert turning.angles("slow", 3).tolist() == [0.0, 45.0, 90.0]
    assert turning.angles("abrupt", 4).tolist() == [0.0, 0.0, 90.0, 90.0]


def test_the_study_reports_every_arm_and_the_evidence(
    study: ModuleType, task: bc.Task, tmp_path: Path
) -> None:
    table, profile = study.study(task, seeds=[0, 1], steps=3, batch_size=6)
    assert set(table["scenario"]) == {"slow", "abrupt"}
    assert len(table) == 2 * 2 * 3 * table["arm"].nunique()
    first = table[table["step"] == 0].set_index(["scenario", "seed", "arm"])["nll"].unstack()
    assert np.allclose(first["filter, chosen"], first["refit map, chosen"])  # zero-shot: nothing is known yet
    totals = table.groupby(["scenario", "seed", "arm"])["nll"].mean().unstack()
    for kind in ("filter", "refit map", "refit laplace"):
        assert (totals[f"{kind}, in hindsight"] <= totals[f"{kind}, chosen"] + 1e-12).all()
    text = study.summary(table, profile)
    assert text.count("| slow |") == text.count("| abrupt |") == 11 + len(study.NOISES)
    assert "log evidence" in text and "±" in text
    study.draw(table, profile, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
