"""The study's distances, with exact draws from importance sampling in the place of its chains."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from importance import weighted_draws
from small_problems import problem_of, tiny_task

import bayes_clip as bc

SCRIPT = Path(__file__).parents[2] / "analysis" / "posterior_against_nuts.py"


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("analysis_posterior_against_nuts", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)

    def exact(task: bc.Task, variance: float, draws: int) -> tuple[object, float]:
        found = weighted_draws(problem_of(task, variance), 20_000)
        return module.moments(task, found.resampled(draws)), float(draws)

    monkeypatch.setattr(module, "chain", exact)
    return module


def test_the_cut_keeps_inner_products_within_its_axes(study: ModuleType) -> None:
    task = tiny_task(classes=5, features=9, shots=3)
    cut = study.cut(task, classes=3, axes=9)
    assert cut.text_features.shape == (3, 9) and cut.query_labels.max() == 2
    kept = task.support_features[task.support_labels < 3]
    assert torch.allclose(
        cut.support_features @ cut.text_features.mT, kept @ task.text_features[:3].mT, atol=1e-5
    )
    assert study.cut(task, axes=4).support_features.shape[1] == 4


def test_a_good_posterior_is_near_and_one_without_correlations_is_not(
    study: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        study, "ENGINES", {name: study.ENGINES[name] for name in ("ekf full", "laplace diagonal")}
    )
    task = tiny_task(classes=3, features=4, shots=8, logit_scale=10.0)
    (table,) = study.study(task, [8], [0], (0.01,), draws=8_000)
    table = table.set_index("arm")
    near, far = table.loc["ekf full"], table.loc["laplace diagonal"]
    for part in ("weight", "logit", "contrast"):
        assert near[f"{part}_mean_rms"] < 0.1 and near[f"{part}_deviation_rms"] < 0.1
    assert far["contrast_deviation_rms"] > 2 * near["contrast_deviation_rms"]
    assert "**" in study.summary(table.reset_index())
