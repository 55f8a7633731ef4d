"""Studies of sensitivity, few and wrong labels, cost and width: on a toy, and what must hold there."""

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

ANALYSIS = Path(__file__).parents[2] / "analysis"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ANALYSIS))  # as python analysis/x.py does
    return importlib.import_module(name)


@pytest.fixture
def task() -> bc.Task:
    return tiny_task(shots=2, queries=5)


def test_every_arm_of_sensitivity_is_measured_against_the_reference(
    task: bc.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load("sensitivity")
    for name in ("FACTORS", "NOISES", "COUNTS"):
        monkeypatch.setattr(
            study, name, {"FACTORS": (0.1, 1.0), "NOISES": (0.0, 0.1), "COUNTS": (1, 2)}[name]
        )
    table = study.study([task], [2], [0])
    assert len(table) == 2 + 2 + 2 + len(study.ORDERS)
    unchanged = table["arm"].isin(["x 1", "0 x P0", "/ 1", "balanced batches"])
    assert (table["nll_above"][unchanged].abs() < 1e-9).all() and unchanged.sum() == 4
    assert "Worst" in study.conclusions(table) and "| tiny |" in study.summary(table)
    study.draw(table)


def test_a_likelihood_to_a_power_is_a_wider_prior_with_less_doubt(task: bc.Task) -> None:
    """What the study says of R: labels counted twice at v have the mode of 2 v, and half its covariance."""
    shared = {"rule": "iterated", "batch_size": 100, "dtype": "float64", "covariance": "full"}
    again = task.with_support(torch.arange(len(task.support_labels)).repeat_interleave(2))
    twice = bc.fit(again, bc.FitSettings(prior_variance=0.01, **shared)).posterior.weights
    wider = bc.fit(task, bc.FitSettings(prior_variance=0.02, **shared)).posterior.weights
    assert_near(twice.mean, wider.mean, 1e-8)
    assert_near(twice.covariance, wider.covariance / 2, 1e-9)


def test_wrong_labels_are_wrong_and_nested(task: bc.Task) -> None:
    study = load("extreme_few_shot")
    few, many = (study.with_wrong_labels(task, share, seed=3).support_labels for share in (0.2, 0.5))
    wrong_few, wrong_many = few != task.support_labels, many != task.support_labels
    assert (wrong_few.sum(), wrong_many.sum()) == (round(0.2 * len(few)), round(0.5 * len(few)))
    assert (many[wrong_few] == few[wrong_few]).all()
    assert (study.with_wrong_labels(task, 0.0, seed=3).support_labels == task.support_labels).all()


def test_few_and_wrong_labels_against_zero_shot(task: bc.Task) -> None:
    study = load("extreme_few_shot")
    settings = (["linear_probe", "no_such_program"], ["map", "laplace"], [1], [0.0, 0.5], [0, 1])
    table, refused = study.study([task], *settings)
    assert len(table) == 2 * 2 * 3 and len(refused) == 2 and "no such model" in refused[0]
    above = study.above_zero_shot(table)
    assert set(above["engine"]) == {"map", "laplace"}
    zero = table[table["engine"] == "zero_shot"]
    assert zero["nll"].nunique() == 1
    assert np.allclose(above["nll_above"], above["nll"] - zero["nll"].iloc[0])
    assert "wrong" in study.conclusions(table) and "zero_shot" in study.summary(table)
    study.draw(table)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone says what a process held")
def test_costs_are_measured_in_processes_of_their_own(task: bc.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load("cost_of_adapters")

    def measured(task: bc.Task, settings: bc.FitSettings) -> dict[str, float | str]:
        """As in the study, but a fit that never ends and one that dies."""
        if settings.model == "sleeps":
            study.time.sleep(60)
        if settings.model == "dies":
            raise SystemExit
        return {"fit_seconds": 2.0 + (settings.engine == "ekf"), "predict_seconds": 1.0, "fit_mib": 1.0,
                "predict_mib": 1.0, "weights": 3, "covariance": "", "accuracy": 0.5, "nll": 1.0}  # fmt: skip

    real = study.measured(task, bc.FitSettings(engine="map"))
    assert real["fit_seconds"] > 0 and real["fit_mib"] >= 0 and real["weights"] == 18
    monkeypatch.setattr(study, "measured", measured)
    arms = [("linear_probe", "map"), ("linear_probe", "sgd"), ("linear_probe", "ekf")]
    table, missing = study.study(task, 1, [*arms, ("sleeps", "map"), ("dies", "map")], [0, 1], patience=0.5)
    assert "stopped" in missing["sleeps", "map"] and "killed" in missing["dies", "map"]
    assert len(table) == 3  # slow ones are not repeated
    found = study.medians(table)
    assert found["to_reference"].tolist() == [1.0, 1.0, 1.5] and found["to_published"].tolist() == [
        1.0,
        1.0,
        1.5,
    ]
    assert "1.5" in study.conclusions(found) and "sleeps under map" in study.summary(found, missing)
    study.draw(found)


def test_growth_with_width(task: bc.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    study = load("growth_with_width")
    assert study.slope([1, 2, 4, 8], [5.0, 5.0, 16.0, 64.0]) == pytest.approx(2.0)
    narrow = study.narrowed(task, 3, seed=0)
    assert narrow.num_features == 3 and study.narrowed(task, 6, seed=0) is task
    whole = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q.float()
    turned = torch.nn.functional.normalize(task.query_features @ whole, dim=-1)
    assert_near(turned @ turned.mT, task.query_features @ task.query_features.mT, 1e-5)
    monkeypatch.setattr(study, "TIMED", (("map", ""), ("ekf", "diagonal")))
    cost = study.costs([8, 12, 16])
    quality = study.qualities([task], [3, 6, 50], [1], [0])
    assert sorted(set(quality["width"])) == [3, 6] and len(quality) == 2 * len(study.ENGINES)
    assert "D = 16" in study.cost_table(cost) and "grows as" in study.conclusions(cost, quality)
    assert study.quality_table(quality).count("tiny") == len(quality)
    study.draw(cost, quality)
