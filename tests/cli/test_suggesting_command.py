"""suggest and predict's promises on the command line, on features of pocket_clip's digits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import bayes_clip as bc
from bayes_clip.cli import main
from bayes_clip.suggesting import COLUMNS


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Posteriors of four shots and of one, and a pool of digits without labels."""
    folder = tmp_path_factory.mktemp("digits")
    task = bc.load_task("digits")
    np.savez(
        folder / "task.npz",
        support_features=task.support_features.numpy(),
        support_labels=task.support_labels.numpy(),
        query_features=task.query_features.numpy(),
        query_labels=task.query_labels.numpy(),
        text_features=task.text_features.numpy(),  # type: ignore[union-attr]
        class_names=np.array(task.class_names),
        logit_scale=task.logit_scale,
    )
    names = np.array([f"photo_{index}.png" for index in range(60)])
    np.savez(folder / "pool.npz", features=task.query_features[:60].numpy(), paths=names)
    np.savez(folder / "none.npz", features=np.ones((0, task.num_features)))
    for shots in ("1", "4"):
        with pytest.raises(SystemExit) as stop:
            main(["fit", str(folder / "task.npz"), "--shots", shots, "--out", str(folder / f"of_{shots}")])
        assert not stop.value.code
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_suggestions_are_shown_and_written(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = places / "to_label.csv"
    status, output, errors = run(
        capsys, "suggest", places / "of_4", places / "pool.npz", "-k", 5, "--out", table
    )
    assert status == 0, errors
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert len({row["input"] for row in rows}) == 5
    for row in rows:
        assert row["input"] in output and row["input"].startswith("photo_")
        assert 0 <= float(row["information"]) <= float(row["alone"]) + 1e-6
        assert float(row["evidence"]) <= 0 < float(row["probability"]) <= 1
    unsure = run(capsys, "suggest", places / "of_1", places / "pool.npz", "-k", 2, "--by", "evidence")
    assert unsure[0] == 0 and "photo_" in unsure[1]


def test_predict_names_the_classes_that_may_be(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = places / "said.csv"
    status, output, errors = run(
        capsys,
        *("predict", places / "of_4", places / "pool.npz", "--coverage", 0.95, "--false-alarms", 0.1),
        *("--abstain-at", 0.05, "--out", table),
    )
    assert status == 0, errors
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        inside = row["set"].split("; ")
        assert inside[0] == row["class"] and len(inside) == int(row["set_size"])
    assert "95% of rows" in output and "over 4 folds" in output
    few = run(capsys, "predict", places / "of_4", places / "pool.npz", "--false-alarms", 0.001)
    assert few[0] == 0 and "40 labels are too few for 0.1% of false alarms" in few[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("suggest", "of_4", "pool.npz", "-k", 0), "-k 0"),
        (("suggest", "of_4", "none.npz"), "none.npz"),
        (("suggest", "of_4", "pool.npz", "--by", "luck"), "luck"),
        (("suggest", "of_4", "pool.npz", "--false-alarms", 0), "--false-alarms 0"),
        (("suggest", "nowhere", "pool.npz"), "nowhere"),
        (("predict", "of_4", "pool.npz", "--coverage", 1), "--coverage 1"),
        (("predict", "of_4", "pool.npz", "--false-alarms", 1.5), "--false-alarms 1.5"),
        (("predict", "of_1", "pool.npz", "--coverage", 0.9), "one shot per class"),
    ],
)
def test_refusals_are_one_line(
    places: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[object, ...],
    said: str,
) -> None:
    monkeypatch.chdir(places)
    status, output, errors = run(capsys, *arguments)
    assert (status, output) == (2, "") and len(errors.splitlines()) == 1 and said in errors


def test_a_pool_of_another_backbone_is_refused(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(places / "task.npz") as archive:
        arrays = dict(archive)
    np.savez(places / "known.npz", **arrays, backbone=np.array("aaaa"))
    other = arrays["query_features"][:5]
    np.savez(places / "other.npz", features=other, backbone=np.array("bbbb"))
    fitted = run(capsys, "fit", places / "known.npz", "--shots", 1, "--out", places / "of_aaaa")
    assert fitted[0] == 0, fitted[2]
    status, _, errors = run(capsys, "suggest", places / "of_aaaa", places / "other.npz")
    assert status == 2 and "bbbb" in errors and "aaaa" in errors
