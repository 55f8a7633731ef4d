"""`bayes-clip protocol` on tiny pictures in CoOp's folders, through pocket_clip."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Cli, commands
from coop_sets import coop_split, imagenet
from matplotlib.figure import Figure
from small_problems import tiny_task

import bayes_clip
from bayes_clip.data.feature_file import save_feature_task
from bayes_clip.report import protocol_write

QUICK = ("--engines", "zero_shot,map", "--prior-variance", "0.01")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line in an empty folder of its own."""
    return commands(tmp_path, capsys, monkeypatch)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet in miniature with variants, textures with a split, and a feature task."""
    root = tmp_path_factory.mktemp("data")
    coop_split(root / "dtd", train=4, test=3)
    imagenet(root, 2, 2)
    save_feature_task(tiny_task(4, shots=4, name="bees"), root / "bees.npz")
    return root


def rows_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty figures from here on: what they show is tested elsewhere, and drawing takes seconds."""
    monkeypatch.setattr(protocol_write, "protocol_figure", lambda rows: Figure(figsize=(1, 1)))


def test_a_whole_round(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = (*QUICK, "--shots", "1,2", "--seeds", "1,2", "--out", "run")
    chosen = ("protocol", root, "--datasets", "imagenet,dtd,oxford_pets", *grid, "--shift")
    done = cli(*chosen)
    assert done.status == 0, done.errors
    assert "oxford_pets" in done.output and "zhengli97/prompt_learning_dataset" in done.output
    assert "imagenet-rendition" in done.output and "mean of data sets" in done.output
    rows = rows_in(Path("run"))
    assert len(rows) == (2 + 3) * 2 * 2 * 2
    adversarial = [row for row in rows if row["task"] == "imagenet-adversarial"]
    assert len(adversarial) == 8 and {row["n_query"] for row in adversarial} == {"6"}
    assert {row["part"] for row in adversarial} == {"shift"}
    written = {item.name for item in Path("run").iterdir()}
    assert written == {
        *("metrics.csv", "protocol.json", "figures"),
        *("summary.csv", "summary.md", "paired.csv", "paired.md"),
    }
    before = Path("run/metrics.csv").read_bytes()
    draw_nothing(monkeypatch)
    again = cli(*chosen)
    assert again.status == 0 and "0 fits, 40 rows" in again.output
    assert Path("run/metrics.csv").read_bytes() == before
    changed = cli(*chosen, "--templates", "a {}")
    assert changed.status == 2 and "made with templates" in changed.errors


def test_base_to_new(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    done = cli(
        *("protocol", root, "--datasets", "dtd,bees", "--base-to-new", *QUICK),
        *("--shots", "2", "--seeds", "1,2", "--out", "run"),
    )
    assert done.status == 0, done.errors
    rows = rows_in(Path("run"))
    assert {row["part"] for row in rows} == {"base", "new"} and len(rows) == 2 * 2 * 2 * 2
    assert {row["n_support"] for row in rows} == {"4"}  # of a new row too: what its posterior learned from
    assert "harmonic" in done.output
    both = cli("protocol", root, "--base-to-new", "--shift")
    assert both.status == 2 and "ask for one of them" in both.errors


def test_what_cannot_be_done_is_said_in_one_line(cli: Cli, root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    none = cli("protocol", "empty", "--out", "run")
    assert none.status == 2 and "none of the data sets is there" in none.errors
    assert all(name in none.output for name in ("imagenet", "dtd", "ucf101"))
    assert none.errors.count("\n") == 1 and not Path("run").exists()
    unknown = cli("protocol", root, "--datasets", "bee")
    assert unknown.status == 2 and "Did you mean 'bees'?" in unknown.errors
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    taken = cli("protocol", root, "--out", "mine")
    assert taken.status == 2 and "thesis.tex" in taken.errors


def test_a_data_set_folder_is_a_task_of_the_other_commands(cli: Cli, root: Path) -> None:
    done = cli("compare", root / "dtd", "--shots", "1", *QUICK, "--out", "run")
    assert done.status == 0, done.errors
    assert {row["task"] for row in rows_in(Path("run"))} == {"dtd"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
def test_a_killed_run_goes_on(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_nothing(monkeypatch)
    (tmp_path / "root").mkdir()
    save_feature_task(tiny_task(4, shots=4, name="bees"), tmp_path / "root" / "bees.npz")
    many = ",".join(str(seed) for seed in range(1, 41))
    places = str(tmp_path / "root"), "--out", str(tmp_path / "run")
    command = ["protocol", *places, "--engines", "laplace", "--shots", "2", "--seeds", many]
    environment = {**os.environ, "PYTHONPATH": str(Path(bayes_clip.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-m", "bayes_clip.cli", *command], env=environment)
    table = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not table.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = rows_in(tmp_path / "run")
    assert 0 < len(left) < 40
    assert cli(*command).status == 0
    finished = rows_in(tmp_path / "run")
    assert finished[: len(left)] == left and len(finished) == 40
    assert len({row["seed"] for row in finished}) == 40
