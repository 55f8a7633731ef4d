"""`bayes-clip export` and the intervals of `evaluate`, as somebody at a terminal meets them."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Cli, commands


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    generator = np.random.default_rng(0)
    labels, centres = np.repeat(np.arange(3), 4), np.eye(3, 6)
    np.savez(
        tmp_path / "pets.npz",
        support_features=centres[labels] + 0.3 * generator.normal(size=(12, 6)),
        support_labels=labels,
        query_features=centres[labels] + 0.3 * generator.normal(size=(12, 6)),
        query_labels=labels,
        text_features=centres + 0.1 * generator.normal(size=(3, 6)),
        class_names=np.array(["ant", "bee", "cat"]),
    )
    return commands(tmp_path, capsys, monkeypatch)


FIT = ("--prior-variance", "0.01", "--predictive", "closed_form")


def test_fit_evaluate_and_export(cli: Cli) -> None:
    assert cli("fit", "pets.npz", *FIT, "--out", "posterior").status == 0
    measured = cli("evaluate", "posterior", "pets.npz", "--out", "measured")
    assert measured.status == 0, measured.errors
    assert "95 % from" in measured.output and "smooth_ece" in measured.output
    with open("measured/intervals.csv", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(rows["nll"]["low"]) < float(rows["nll"]["value"]) < float(rows["nll"]["high"])
    assert Path("measured/paired.csv").read_text().count("\n") == 1  # one fit: nothing to compare
    outcome = cli("export", "posterior", "--out", "leaving", "--format", "torch")
    assert outcome.status == 0, outcome.errors
    assert sorted(path.name for path in Path("leaving").iterdir()) == [
        "predictive.json",
        "predictive.pt2",
        "weights.safetensors",
    ]
    about = json.loads(Path("leaving/predictive.json").read_text())
    assert about["class_names"] == ["ant", "bee", "cat"] and about["novelty_limit"] is not None
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("fit", "pets.npz", *FIT, "--model", "tip_adapter", "--out", "curved").status == 0
    Path("taken").mkdir()
    Path("taken/thesis.tex").write_text("years of work")
    for arguments, words in (
        (("curved", "--out", "new", "--format", "torch"), "tip_adapter is no linear head"),
        (("nowhere", "--out", "new", "--format", "torch"), "nowhere: no posterior there"),
        (("curved", "--out", "new", "--format", "onxx"), "--format onxx: no such format"),
        (("curved", "--out", "new", "--false-alarms", "2", "--format", "torch"), "--false-alarms"),
        (("curved", "--out", "taken", "--format", "torch"), "thesis.tex"),
        (("curved", "--out", "pets.npz", "--format", "torch"), "is a file"),
    ):
        outcome = cli("export", *arguments)
        assert (outcome.status, outcome.output) == (2, ""), arguments
        assert words in outcome.errors and outcome.errors.count("\n") == 1
        assert not Path("new").exists()
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.tex"]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "onnx" else found(name))
    outcome = cli("export", "curved", "--out", "new")
    assert outcome.status == 2 and 'pip install "bayes-clip[export]"' in outcome.errors
