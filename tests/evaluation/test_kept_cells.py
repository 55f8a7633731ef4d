"""A comparison that was stopped goes on from the cells that had finished."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_problems import tiny_task

from bayes_clip.evaluation import comparison as module
from bayes_clip.evaluation.comparison import compare
from bayes_clip.evaluation.kept_cells import KeptCells, Scored, cell_name, queried
from bayes_clip.evaluation.results import Comparison
from bayes_clip.settings import FitSettings

TASK = tiny_task(ood=True)
SETTINGS = FitSettings(prior_variance=0.01)
ASKED = {"engines": ("zero_shot", "map", "ekf"), "shots": [1, 9], "seeds": [0, 1], "settings": SETTINGS}


class Stopped(Exception):
    """Stands for Ctrl-C."""


def stopped_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Have fits stop the run after so many; returns what is fitted."""
    fitted: list[object] = []
    fit_cell = module.fit_cell

    def counted(task: object, arm: object) -> Scored:
        if len(fitted) == count:
            raise Stopped
        fitted.append(arm)
        return fit_cell(task, arm)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit_cell", counted)
    return fitted


@pytest.mark.parametrize("stop", [0, 5])
def test_stopped_and_resumed_is_as_never_stopped(
    stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare([TASK], **ASKED)  # type: ignore[arg-type]
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stopped_after(stop, patch)
        compare([TASK], **ASKED, keep=tmp_path / "cells")  # type: ignore[arg-type]
    fitted = stopped_after(99, monkeypatch)
    resumed = compare([TASK], **ASKED, keep=tmp_path / "cells", resume=True)  # type: ignore[arg-type]
    assert len(fitted) == len(whole.runs) - stop == 12 - stop
    same(whole, resumed)


def same(one: Comparison, other: Comparison) -> None:
    assert one.notes == other.notes
    for run, again in zip(one.runs, other.runs, strict=True):
        for name, value in run.row.items():
            assert name.endswith("_seconds") or again.row[name] == value
            assert type(again.row[name]) is type(value)
        for name, values in vars(run).items():
            if name != "row":
                kept = getattr(again, name)
                assert (values is None and kept is None) or np.array_equal(values, kept)


def test_without_resume_what_is_there_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare([TASK], engines=["map"], settings=SETTINGS, keep=tmp_path)
    fitted = stopped_after(99, monkeypatch)
    compare([TASK], engines=["map"], settings=SETTINGS, keep=tmp_path)
    assert len(fitted) == 1


@pytest.mark.parametrize(
    "changed",
    [{"settings": FitSettings(prior_variance=0.02)}, {"seeds": [1]}, {"tasks": [tiny_task(seed=3)]}],
)
def test_cells_of_another_run_are_not_taken(
    changed: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"tasks": [TASK], "engines": ["map"], "shots": [2], "settings": SETTINGS, "keep": tmp_path}
    compare(**asked)  # type: ignore[arg-type]
    fitted = stopped_after(99, monkeypatch)
    compare(**{**asked, **changed, "resume": True})
    assert len(fitted) == 1


def test_a_damaged_cell_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare([TASK], engines=["map"], settings=SETTINGS, keep=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    fitted = stopped_after(99, monkeypatch)
    compare([TASK], engines=["map"], settings=SETTINGS, keep=tmp_path, resume=True)
    assert len(fitted) == 1
    name = cell_name(TASK, FitSettings(engine="map", prior_variance=0.01), None, 0, queried(TASK))
    assert file.name == name and KeptCells(tmp_path).read(name) is not None
