"""The command and its folder, on tiny numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bayes_clip.cli import main
from bayes_clip.evaluation.checking import COLUMNS, check
from bayes_clip.report.check_page import pictures


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_the_command_writes_tables_verdicts_and_figures_and_a_failing_engine_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = tmp_path / "checked"
    asked = ("check", "--engines", "laplace,map", "--covariance", "diagonal", "--simulations", 20)
    assert run(*asked, "--prior-logit-variance", "1,100", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "too narrow" in printed and "map is a point without doubt" in printed
    with (out / "checks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [row["prior_logit_variance"] for row in rows] == ["1.0", "100.0"]
    verdicts = json.loads((out / "verdicts.json").read_text())
    assert verdicts["checks"][1]["verdict"] == "too narrow" and verdicts["simulations"] == 20
    with (out / "quantities.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * 14
    names = {path.name for path in (out / "figures").iterdir()}
    for stem in ("coverage", "ranks_laplace_diagonal", "rank_functions_laplace_diagonal"):
        assert {f"{stem}.png", f"{stem}.svg"} <= names
    assert "<svg" in (out / "figures" / "coverage.svg").read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--engines", "ekff"), "no such engine"),
        (("--simulations", 3), "too few"),
        (("--prior-logit-variance", "1,x"), "'x' is no positive number"),
        (("--rule", "plane"), "no such rule"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    asked: tuple, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", *asked, "--out", tmp_path / "out") == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    assert run("check", "--simulations", 20, "--out", tmp_path) == 2
    assert "holds 'thesis.tex', not written by this command" in capsys.readouterr().err


def test_a_filter_also_gets_a_picture_of_its_innovations() -> None:
    report = check(["ekf"], rules=["plain"], prior_logit_variances=[1.0], simulations=20)
    drawn = {picture.name: picture.figure for picture in pictures(report)}
    assert set(drawn) == {
        "coverage",
        "ranks_ekf_class_block_plain",
        "rank_functions_ekf_class_block_plain",
        "innovations_ekf_class_block_plain",
    }
    assert len(drawn["innovations_ekf_class_block_plain"].axes) == 4
    assert pictures(type(report)((), (), {})) == []
