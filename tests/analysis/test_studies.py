"""The studies run on a small task, and say what the identities of the filter demand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from small_problems import tiny_task

import bayes_clip as bc

ANALYSIS = Path(__file__).parents[2] / "analysis"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"analysis_{name}", ANALYSIS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def task() -> bc.Task:
    generator = torch.Generator().manual_seed(3)
    text = torch.nn.functional.normalize(torch.randn(4, 12, generator=generator), dim=-1)
    labels = torch.arange(4).repeat(8)
    rows = text[labels] + 0.4 * torch.randn(32, 12, generator=generator)
    return bc.make_task(
        "small", rows[:16], labels[:16], rows[16:], labels[16:], text_features=text, logit_scale=20.0
    )


def test_filter_against_map_is_the_mode_at_one_shot(task: bc.Task) -> None:
    study = load("filter_against_map")
    table = study.study(task, shots=[1, 2], seeds=[0])
    iterated = table[(table["rule"] == "iterated") & (table["shots"] == 1)]
    assert len(iterated) == len(study.VARIANCES)
    assert iterated["nll_above_mode"].abs().max() < 1e-4  # float32 features
    assert "expected" in study.summary(table)


def test_regret_is_measured_against_the_best_of_the_grid(task: bc.Task) -> None:
    study = load("prior_variance_regret")
    table = study.study(task, ["map"], shots=[2], seeds=[0, 1])
    assert (table["regret"] == table["chosen_nll"] - table["best_fixed_nll"]).all()
    assert table["best_fixed_variance"].isin(study.GRID).all()
    assert study.summary(table).count("\n") == 2


def test_labels_one_at_a_time_are_mended_by_sweeps_and_the_table_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = load("labels_one_at_a_time")
    monkeypatch.setattr(study, "SHOTS", 3)
    table = study.study(tiny_task(classes=4, shots=3), [0])
    swept = table[(table["rule"] == "iterated") & (table["treatment"] == "joined sweep")]
    # 12 labels are joined to one batch, which the iterated rule takes to the mode whatever came before
    assert swept["nll_above_mode"].abs().max() < 1e-3
    assert swept["order_matters"].max() < 1e-3
    came = table[(table["treatment"] == "as it came") & (table["rule"] == "expected")]
    assert set(came["order"]) == set(study.ORDERS)
    assert study.summary(table).count("\n") > 8


def test_the_published_recipe_stands_beside_the_default() -> None:
    study = load("paired_cosines")
    table = study.study(tiny_task(shots=2), shots=[1], seeds=[0])
    assert len(table) == len(study.ARMS) + 1
    assert table["noise"].notna().sum() == (table["rule"] == "kalman_clip").sum()
    assert "kalman_clip" in study.summary(table)


def test_classes_that_are_skipped_move_probabilities_and_none_is_at_a_bound_of_zero(task: bc.Task) -> None:
    study = load("class_skipping")
    table = study.study(task)
    assert table["skipped_share"].is_monotonic_increasing and table["skipped_share"].iloc[-1] > 0
    assert table["largest_error_in_probability"].iloc[0] == 0 < table["largest_error_in_probability"].iloc[-1]
    assert "pairs skipped" in study.summary(table, "small")
