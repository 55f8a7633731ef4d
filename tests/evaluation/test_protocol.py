"""The protocol on made-up feature tasks: resumed runs, grids that grow, cells that fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_problems import tiny_task

from bayes_clip.data.dataset_root import find_data_sets
from bayes_clip.data.feature_file import save_feature_task
from bayes_clip.data.prepared import Draws, Prepared, Reading, ShiftedTask, prepare_all
from bayes_clip.data.task import few_shot
from bayes_clip.errors import UserError
from bayes_clip.evaluation import protocol as module
from bayes_clip.evaluation.comparison import compare
from bayes_clip.evaluation.protocol import COLUMNS, Grid, Outcome, run_protocol
from bayes_clip.evaluation.results import METRIC_COLUMNS
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings

SETTINGS = FitSettings(prior_variance=0.01)
GRID = Grid(engines=("zero_shot", "map", "ekf"), shots=(1, 2), seeds=(1, 2), settings=SETTINGS)
CLOCKS = ("fit_seconds", "predict_seconds")


def prepared(root: Path, tasks: dict[str, int]) -> list[Prepared]:
    """Feature tasks by name; the value is the seed they are made with."""
    root.mkdir(exist_ok=True)
    for name, seed in tasks.items():
        save_feature_task(tiny_task(4, shots=4, seed=seed, name=name), root / f"{name}.npz")
    draws = Draws(GRID.shots, GRID.seeds)
    return prepare_all(find_data_sets(root, list(tasks)), Reading(None), draws)[0]


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> list[Prepared]:
    return prepared(tmp_path_factory.mktemp("root"), {"ants": 0, "bees": 1})


@pytest.fixture(scope="module")
def whole(data_sets: list[Prepared], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_protocol(GRID, data_sets, folder)
    return folder


def lines(folder: Path) -> list[list[str]]:
    """metrics.csv without what the clock said."""
    table = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    kept = [place for place, name in enumerate(table[0]) if name not in CLOCKS]
    assert all(len(line) == len(table[0]) for line in table)
    return [[line[place] for place in kept] for line in table]


def test_every_cell_is_a_row_with_the_columns_of_a_comparison(data_sets: list[Prepared], whole: Path) -> None:
    header, *rows = lines(whole)
    assert (whole / "metrics.csv").read_text().splitlines()[0].split(",") == list(COLUMNS)
    assert COLUMNS[: len(METRIC_COLUMNS)] == METRIC_COLUMNS and COLUMNS[-1] == "part"
    assert len(rows) == 2 * 3 * 2 * 2
    shared = {"engines": GRID.engines, "shots": GRID.shots, "seeds": GRID.seeds, "settings": SETTINGS}
    compared = compare([one.task for one in data_sets], **shared)  # type: ignore[arg-type]
    for run, row in zip(compared.runs, rows, strict=True):
        for name in ("task", "engine", "shots", "seed", "accuracy", "nll", "ece", "n_support"):
            assert str(run.row[name]) == row[header.index(name)]


@pytest.mark.parametrize("stopped_after", [0, 7])
def test_killed_and_resumed_is_as_never_stopped(
    data_sets: list[Prepared],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_after: int,
) -> None:
    fitted = 0

    def fit_or_die(*arguments: object, **options: object) -> object:
        nonlocal fitted
        fitted += 1
        if fitted == stopped_after + 1:
            raise KeyboardInterrupt
        return fit(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit", fit_or_die)
    with pytest.raises(KeyboardInterrupt):
        run_protocol(GRID, data_sets, tmp_path)
    if stopped_after:
        assert lines(tmp_path) == lines(whole)[: stopped_after + 1]
    (tmp_path / ".metrics.csv.x.part").write_text("half a")
    outcome = run_protocol(GRID, data_sets, tmp_path)
    assert outcome.fitted == 24 - stopped_after and len(outcome.rows) == 24
    assert lines(tmp_path) == lines(whole)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["metrics.csv", "protocol.json"]
    assert run_protocol(GRID, data_sets, tmp_path).fitted == 0


def test_the_grid_may_grow_and_its_settings_may_not(data_sets: list[Prepared], tmp_path: Path) -> None:
    small = replace(GRID, engines=("map",), shots=(2,), seeds=(1,))
    run_protocol(small, data_sets[:1], tmp_path)
    grown = run_protocol(replace(small, seeds=(1, 2)), data_sets, tmp_path)
    assert grown.fitted == 3 and len(grown.rows) == 4
    other = replace(small, settings=replace(SETTINGS, prior_variance=0.02))
    with pytest.raises(UserError, match=r"made with prior-variance 0\.01, now it is 0\.02"):
        run_protocol(other, data_sets, tmp_path)
    with pytest.raises(UserError, match="made with base-to-new False, now it is True"):
        run_protocol(replace(small, base_to_new=True), data_sets, tmp_path)
    changed = prepared(tmp_path / "changed", {"ants": 5})
    with pytest.raises(UserError, match="rows of ants were made with content"):
        run_protocol(small, changed, tmp_path)


def test_a_cell_that_cannot_be_fitted_keeps_no_other_from_it(
    data_sets: list[Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(task: object, settings: FitSettings) -> object:
        if settings.engine == "map":
            raise UserError("the filter broke down")
        return fit(task, settings)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "fit", fragile)
    grid = replace(GRID, shots=(1,), seeds=(1,))
    outcome = run_protocol(grid, data_sets, tmp_path)
    assert outcome.fitted == 4 and len(outcome.rows) == 4 and len(outcome.failures) == 2
    assert outcome.failures[0] == "ants, linear_probe, map, 1 shots, seed 1: the filter broke down"
    monkeypatch.undo()
    assert run_protocol(grid, data_sets, tmp_path).fitted == 2


def test_what_cannot_run_on_a_data_set_is_left_out_as_in_a_comparison(tmp_path: Path) -> None:
    save_feature_task(tiny_task(4, text=False, name="bare"), tmp_path / "bare.npz")
    draws = Draws((1,), (1,))
    bare, _ = prepare_all(find_data_sets(tmp_path), Reading(None), draws)
    grid = replace(GRID, shots=(1,), seeds=(1,))
    outcome = run_protocol(grid, bare, tmp_path / "run")
    assert {row["engine"] for row in outcome.rows} == {"map", "ekf"}
    assert any("zero_shot" in note for note in outcome.notes)
    with pytest.raises(UserError, match=r"nothing to run: .*zero_shot"):
        run_protocol(replace(grid, engines=("zero_shot",)), bare, tmp_path / "run2")
    with pytest.raises(UserError, match="Did you mean 'ekf'"):
        run_protocol(replace(grid, engines=("ekff",)), bare, tmp_path / "run3")


def shifted_run(folder: Path, tmp_path: Path) -> tuple[Prepared, ShiftedTask, Outcome]:
    (imagenet,) = prepared(tmp_path / "root", {"imagenet": 0})
    other = tiny_task(4, seed=0, name="variant")
    among = torch.tensor([label in (0, 3) for label in other.query_labels.tolist()])
    task = replace(
        imagenet.task,
        name="imagenet-adversarial",
        query_features=other.query_features[among],
        query_labels=other.query_labels[among],
        query_norms=None,
    )
    shifted = ShiftedTask(task, (0, 3))
    grid = replace(GRID, shots=(1,), seeds=(1,), settings=replace(SETTINGS, predictive="plug_in"))
    return imagenet, shifted, run_protocol(grid, [imagenet], folder, [shifted])


def test_only_the_classes_of_a_variant_compete(tmp_path: Path) -> None:
    imagenet, shifted, outcome = shifted_run(tmp_path / "run", tmp_path)
    assert [(row["task"], row["part"]) for row in outcome.rows[:2]] == [
        ("imagenet", "all"),
        ("imagenet-adversarial", "shift"),
    ]
    drawn = few_shot(imagenet.task, 1, 1)
    for row in outcome.rows:
        if row["part"] != "shift":
            continue
        settings = replace(SETTINGS, engine=str(row["engine"]), predictive="plug_in")
        prediction = fit(drawn, settings).posterior.predict(shifted.task.query_features)
        logits = prediction.logit_mean[:, [0, 3]].double()
        truth = (shifted.task.query_labels == 3).long()
        said = logits.log_softmax(-1)
        assert row["nll"] == pytest.approx(float(-said[range(len(truth)), truth].mean()), abs=1e-6)
        assert row["accuracy"] == np.mean((said.argmax(-1) == truth).numpy())
        assert row["n_query"] == len(truth) == 40


def test_a_variant_that_comes_later_has_its_rows_added(tmp_path: Path) -> None:
    imagenet, shifted, first = shifted_run(tmp_path / "run", tmp_path)
    grid = replace(GRID, shots=(1,), seeds=(1,), settings=replace(SETTINGS, predictive="plug_in"))
    later = replace(shifted, task=replace(shifted.task, name="imagenetv2"))
    second = run_protocol(grid, [imagenet], tmp_path / "run", [shifted, later])
    assert len(first.rows) == 6 and len(second.rows) == 9
    assert len({(row["task"], row["engine"]) for row in second.rows}) == 9
