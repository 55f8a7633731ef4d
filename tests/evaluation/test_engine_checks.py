from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from small_problems import tiny_task

from bayes_clip.evaluation import engine_checks
from bayes_clip.evaluation.comparison import compare
from bayes_clip.evaluation.engine_checks import RECORD, remark, self_check, write_record
from bayes_clip.evaluation.results import METRIC_COLUMNS, summarise
from bayes_clip.settings import FitSettings

EKF = FitSettings(engine="ekf", covariance="full", rule="iterated")


def entry(value: float, verdict: str, engine: str = "ekf", covariance: str = "full") -> dict:
    rule = "iterated" if engine == "ekf" else ""
    return {
        "model": "linear_probe",
        "engine": engine,
        "covariance": covariance,
        "rule": rule,
        "prior_logit_variance": value,
        "simulations": 50,
        "verdict": verdict,
        "left_out": 1.0,
    }


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A record of three regimes in the place of the shipped one."""
    path = tmp_path / "checks.json"
    monkeypatch.setattr(engine_checks, "RECORD", path)
    write_record([entry(1.0, "passes"), entry(10.0, "too wide"), entry(100.0, "too narrow")], path)
    yield path
    engine_checks._record.cache_clear()


def test_the_nearest_regime_speaks_within_a_factor_of_five(record: Path) -> None:
    for asked, wanted in ((1.0, "passes"), (2.9, "passes"), (3.5, "too wide"), (0.3, "passes")):
        assert self_check(EKF, asked).verdict == wanted
    assert self_check(EKF, 400.0).verdict == "too narrow"
    assert self_check(EKF, 600.0).verdict == self_check(EKF, 0.1).verdict == "unchecked"


def test_what_the_record_has_not_seen_is_unchecked_and_points_are_empty(record: Path) -> None:
    assert self_check(replace(EKF, covariance="diagonal"), 1.0).verdict == "unchecked"
    assert self_check(replace(EKF, rule="plain"), 1.0).verdict == "unchecked"
    assert self_check(replace(EKF, passes=2), 1.0).verdict == "unchecked"
    assert self_check(replace(EKF, decay=0.9), 1.0).verdict == "unchecked"
    assert self_check(replace(EKF, model="./mine.py"), 1.0).verdict == "unchecked"
    assert self_check(FitSettings(engine="nuts"), 1.0).verdict == "unchecked"
    for engine in ("map", "zero_shot"):
        assert self_check(FitSettings(engine=engine), 1.0).verdict == ""
    assert not any(self_check(FitSettings(engine=engine), 1.0).fails for engine in ("map", "nuts"))


def test_later_rows_replace_earlier_ones_of_the_same_combination(record: Path) -> None:
    write_record([entry(10.0, "passes"), entry(1.0, "passes", "laplace")], record)
    assert self_check(EKF, 10.0).verdict == "passes" and self_check(EKF, 100.0).fails
    assert self_check(FitSettings(engine="laplace", covariance="full"), 1.0).verdict == "passes"
    assert "left_out" not in record.read_text() and not list(record.parent.glob("*.partial"))


def test_compare_says_who_fails_and_where(record: Path) -> None:
    write_record([entry(10.0, "too narrow", "laplace", "class_block")], record)
    settings = FitSettings(prior_variance=10 / 20**2, predictive="plug_in")
    compared = compare([tiny_task()], engines=["map", "laplace", "ekf"], seeds=[0, 1], settings=settings)
    verdicts = [run.row["self_check"] for run in compared.runs]
    assert verdicts == ["", "too narrow", "unchecked"] * 2
    notes = [note for note in compared.notes if "own check" in note]
    assert notes == [
        "laplace · class_block fails its own check at a prior logit variance of 10: too narrow "
        "(bayes-clip check says how)"
    ]
    assert compared.columns().index("self_check") >= 16 and METRIC_COLUMNS[-1] == "self_check"
    assert [row["self_check"] for row in summarise(compared)] == ["", "too narrow", "unchecked"]
    assert remark(EKF, self_check(EKF, 90.0)).startswith("ekf · full · iterated fails its own check")


def test_the_shipped_record_can_be_read_and_knows_the_default_engines() -> None:
    assert RECORD.is_file()
    engine_checks._record.cache_clear()
    for engine in ("ekf", "laplace"):
        for value in (1.0, 10.0, 100.0):
            found = self_check(FitSettings(engine=engine), value)
            assert found.verdict != "unchecked" and found.prior_logit_variance == value
