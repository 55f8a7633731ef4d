"""The study of drifting labels: no choice knows labels yet to come, and classes turn as they should."""

from __future__ import annotations

import importlib.util
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
    path = Path(__file__).parents[2] / "analysis" / "drifting_labels.py"
    spec = importlib.util.spec_from_file_location("analysis_drifting_labels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def task() -> bc.Task:
    return tiny_task(classes=3, features=6, shots=6, queries=6)


def test_the_leader_is_followed_without_looking_ahead(study: ModuleType) -> None:
    losses = np.random.default_rng(0).random((4, 12))
    found = study.chosen_online(losses)
    for step in range(12):
        leader = int(losses[:, :step].sum(1).argmin()) if step else 0
        assert found[step] == losses[leader, step]
    changed = losses.copy()
    changed[:, 7:] = 1 - changed[:, 7:]
    assert (study.chosen_online(changed)[:7] == found[:7]).all()
    kept = study.chosen_online(losses, until=5)
    assert (kept[5:] == losses[losses[:, :5].sum(1).argmin(), 5:]).all()


def test_classes_turn_towards_the_next_and_keep_their_length(study: ModuleType, task: bc.Task) -> None:
    rows = torch.cat([task.support_features, task.query_features])
    labels = torch.cat([task.support_labels, task.query_labels])
    order = torch.arange(len(rows))
    still = study.turned_features(task, order, torch.zeros(len(rows)))
    assert_near(still, rows, 1e-6)
    turned = study.turned_features(task, order, torch.full((len(rows),), 90.0))
    assert_near(turned.norm(dim=-1), rows.norm(dim=-1), 1e-5)
    means = torch.stack([rows[labels == label].mean(0) for label in range(3)])
    moved = torch.stack([turned[labels == label].mean(0) for label in range(3)])
    assert float(torch.cosine_similarity(means, moved).abs().max()) < 1e-5
    assert (torch.cosine_similarity(moved, means.roll(-1, dims=0)) > 0.5).all()


def test_angles_turn_slowly_or_at_once(study: ModuleType) -> None:
    assert study.angles("slow", 3).tolist() == [0.0, 45.0, 90.0]
    assert study.angles("abrupt", 4).tolist() == [0.0, 0.0, 90.0, 90.0]


def test_the_study_reports_every_arm_and_the_evidence(
    study: ModuleType, task: bc.Task, tmp_path: Path
) -> None:
    table, profile = study.study(task, seeds=[0, 1], steps=3, batch_size=6)
    assert set(table["scenario"]) == {"slow", "abrupt"}
    assert len(table) == 2 * 2 * 3 * table["arm"].nunique()
    first = table[table["step"] == 0].groupby(["scenario", "seed"])["nll"]
    assert (first.nunique() <= 4).all()  # before any label the arms differ in prior variance and scale alone
    totals = table.groupby(["scenario", "seed", "arm"])["nll"].mean().unstack()
    for kind in ("filter", "refit map", "refit laplace"):
        assert (totals[f"{kind}, in hindsight"] <= totals[f"{kind}, online"] + 1e-12).all()
    text = study.summary(table, profile)
    assert text.count("| slow |") == text.count("| abrupt |") == 8 + len(study.NOISES)
    assert "log evidence" in text and "±" in text
    study.draw(table, profile, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
