"""Tasks of pictures and robustness curves by the command line, as a user would ask for them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import Cli, commands
from coop_sets import SHAPES, coop_split

from bayes_clip.storage.folder import load_posterior


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    return commands(tmp_path, capsys, monkeypatch)


def test_a_coop_folder_and_a_table_are_tasks_like_any_other(cli: Cli, tmp_path: Path) -> None:
    coop_split(tmp_path / "textures", train=3, test=3)
    split = json.loads((tmp_path / "textures" / "split_zhou_DescribableTextures.json").read_text())
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for part in ("train", "val", "test"):
            writer.writerows([f"textures/images/{path}", name, part] for path, _, name in split[part])
    compared = cli("compare", "textures", "table.csv", "--engines", "map", "--out", "out")
    assert compared.status == 0, compared.errors
    assert "rows of split 'val', which are left out: 4" in compared.output
    with (tmp_path / "out" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["task"] for row in rows] == ["textures", "table"]
    assert rows[0]["n_query"] == rows[1]["n_query"] == "12"
    fitted = cli("fit", "textures", "--engine", "map", "--out", "posterior", "--report", "report")
    assert fitted.status == 0, fitted.errors
    assert load_posterior(tmp_path / "posterior").class_names == SHAPES  # in the order of the split
    assert (tmp_path / "report" / "suspects.csv").read_text().startswith("row,input,given,suggested")
    shifted = cli(
        *("shift", "posterior", "table.csv", "--corruptions", "blur,jpeg", "--severities", "1,4-5"),
        *("--pictures", 5, "--out", "curves"),
    )
    assert shifted.status == 0, shifted.errors
    with (tmp_path / "curves" / "shift.csv").open() as file:
        found = [(row["corruption"], row["severity"], row["n_query"]) for row in csv.DictReader(file)]
    assert found[:2] == [("none", "0", "5"), ("blur", "1", "5")] and len(found) == 7
    assert "AUROC" in shifted.output and "report: curves/report.html" in shifted.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "gone.csv", "--out", "p"), "gone.csv: no such task"),
        (("fit", "bad.csv", "--out", "p"), "bad.csv line 2: "),
        (("compare", "torchvision:cifr10"), "Did you mean 'cifar10'"),
        (
            ("compare", "torchvision:svhn:nowhere"),
            "svhn:nowhere: not there; it belongs in nowhere",
        ),
        (("compare", "digits", "--class-prior", "evn"), "--class-prior evn: no such prior"),
        (("shift", "p", "digits", "--corruptions", "fog"), "corruption 'fog': no such corruption"),
        (("shift", "p", "digits", "--severities", "0-3"), "--severities"),
        (("shift", "p", "digits", "--severities", "3-7"), "severity 6"),
        (("shift", "p", "digits", "--severities", "3-1"), "ends before it begins"),
        (("shift", "p", "digits"), "p: "),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: tuple[str, ...], message: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text("path,label\ngone.png,circle\n")
    outcome = cli(*arguments)
    assert outcome.status == 2 and message in outcome.errors, outcome.errors
    assert len(outcome.errors.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]
