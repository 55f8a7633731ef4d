"""`bayes-clip evaluate --arviz`: draws of a posterior with the query set, read back by ArviZ."""

from __future__ import annotations

from pathlib import Path

import arviz
import numpy as np
import pytest
from small_problems import tiny_task

from bayes_clip.cli import main
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a posterior and its task."""
    monkeypatch.chdir(tmp_path)
    task = tiny_task()
    arrays = ("support_features", "support_labels", "query_features", "query_labels", "text_features")
    np.savez("task.npz", **{name: getattr(task, name).numpy() for name in arrays})
    fit(task, FitSettings(prior_variance=0.01)).posterior.save("posterior")
    return tmp_path


def test_the_query_set_is_exported(place: Path) -> None:
    assert run("evaluate", "posterior", "task.npz", "--arviz", "draws.nc") == 0
    data = arviz.from_netcdf("draws.nc")
    assert data["log_likelihood"]["labels"].shape == (1, 500, len(tiny_task().query_labels))
    assert data["posterior"].attrs["engine"] == "ekf"
    assert {path.name for path in place.iterdir()} == {"task.npz", "posterior", "draws.nc"}


def test_a_place_that_cannot_be_written_is_refused_first(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", "posterior", "task.npz", "--arviz", "nowhere/draws.nc") != 0
    said = capsys.readouterr()
    assert "nowhere" in said.err and "accuracy" not in said.out
