"""The study that fills the record of `compare` keeps rows of earlier runs and replaces repeated ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

from bayes_clip.evaluation.checking import Arm

PATH = Path(__file__).parents[2] / "analysis" / "check_engines.py"
SPEC = importlib.util.spec_from_file_location("analysis_check_engines", PATH)
assert SPEC is not None and SPEC.loader is not None
study = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(study)


def row(value: float, verdict: str, engine: str = "ekf", covariance: str = "full") -> dict:
    rule = "plain" if engine == "ekf" else ""
    return {
        **{"model": "linear_probe", "engine": engine, "covariance": covariance, "rule": rule},
        **{"prior_logit_variance": value, "calibration": verdict, "verdict": verdict},
        **{"width_needed": 1.25, "pareto_k": 0.5, "labels": "passes" if rule else ""},
    }


def test_rows_are_merged_by_combination_and_survive_a_round_trip(tmp_path: Path) -> None:
    first = study.merged(pd.DataFrame(), [row(1.0, "passes"), row(10.0, "too wide")])
    first.to_csv(tmp_path / "checks.csv", index=False)
    again = study.merged(
        study._read(tmp_path / "checks.csv"), [row(10.0, "shifted"), row(1.0, "x", "laplace")]
    )
    assert list(again["verdict"]) == ["passes", "shifted", "x"]
    assert study._has(again, Arm("linear_probe", "ekf", "full", "plain"), 10.0)
    assert not study._has(again, Arm("linear_probe", "ekf", "diagonal", "plain"), 10.0)
    assert study._read(tmp_path / "nothing.csv").empty


def test_the_table_has_a_line_for_every_arm_and_a_gap_where_nothing_was_measured() -> None:
    table = study.merged(
        pd.DataFrame(), [row(1.0, "passes"), row(10.0, "too wide"), row(1.0, "x", "laplace")]
    )
    lines = study.markdown(table).splitlines()
    assert lines[2] == (
        "| ekf | full | plain | **passes** (×1.25, k̂ 0.50); stream: passes "
        "| **too wide** (×1.25, k̂ 0.50); stream: passes |"
    )
    assert lines[3] == "| laplace | full |  | **x** (×1.25, k̂ 0.50) |  |"


def test_an_arm_that_is_refused_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert study.measured(Arm("linear_probe", "ekf", "full", "plain"), 1.0, 3, 0) is None
