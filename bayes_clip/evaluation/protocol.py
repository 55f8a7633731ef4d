"""Few-shot evaluation as CoOp does it: models x engines x shots x seeds x data sets, one row as each ends."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bayes_clip.cluster import Cluster, check_ray, spread
from bayes_clip.data.coop_layouts import IMAGENET
from bayes_clip.data.prepared import Prepared, ShiftedTask
from bayes_clip.data.task import few_shot
from bayes_clip.errors import UserError
from bayes_clip.evaluation.base_to_new import halves, on_new_classes
from bayes_clip.evaluation.comparison import Cell, cells_of, named_arms
from bayes_clip.evaluation.results import METRIC_COLUMNS, Run
from bayes_clip.evaluation.scoring import score_posterior
from bayes_clip.evaluation.table_file import Row, agree, read_rows, remove_unfinished, write_rows
from bayes_clip.fitting import fit
from bayes_clip.progress import track
from bayes_clip.settings import FitSettings
from bayes_clip.storage.lock import locked

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (1, 2, 3)  # as in CoOp
TABLE = "metrics.csv"
CONFIG = "protocol.json"
FILES = (TABLE, CONFIG)  # in the folder of a run
# What a row is scored on: all classes; the half that was learned and the one that was not; a variant.
ALL, BASE, NEW, SHIFT = "all", "base", "new", "shift"
PART = "part"
COLUMNS = (*METRIC_COLUMNS, PART)
KEY = ("task", PART, "model", "engine", "shots", "seed")
NOT_SHARED = ("model", "engine", "seed")  # settings that differ from cell to cell


@dataclass(frozen=True)
class Grid:
    """What is run on every data set."""

    models: Sequence[str] = ("linear_probe",)
    engines: Sequence[str] = ("ekf",)
    shots: Sequence[int] = SHOTS
    seeds: Sequence[int] = SEEDS
    settings: FitSettings = FitSettings()  # noqa: RUF009 - frozen
    base_to_new: bool = False  # fitted on the first half of the classes, tried on both


@dataclass(frozen=True)
class Outcome:
    """All rows of the table, those of earlier runs included; what was left out; what could not be fitted."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    failures: tuple[str, ...]
    fitted: int  # cells of this run


def run_protocol(
    grid: Grid,
    data_sets: Sequence[Prepared],
    folder: Path,
    shifts: Sequence[ShiftedTask] = (),
    cluster: Cluster | None = None,
) -> Outcome:
    """Fit and score every cell that `folder` has no rows of yet, and keep its rows as it ends.

    Rows have the columns of a comparison's metrics.csv, then `part`. Draws are nested and the same for every
    model and engine. A run that is stopped goes on where it was; the grid and the data sets may grow. A cell
    that cannot be fitted is reported at the end and keeps no other from being fitted. ImageNet's fits are
    also tried on `shifts`. On a `cluster` cells are fitted at the same time; this process alone writes, and
    the rows stand in the same order.

    Raises:
        UserError: an unknown name, or a folder whose rows were made with other settings or data.
    """
    models, engines = named_arms(grid.models, grid.engines)
    by_name = {prepared.task.name: prepared for prepared in data_sets}
    notes = [f"{name}: {note}" for name, prepared in by_name.items() for note in prepared.task.notes]
    tasks = [prepared.task for prepared in data_sets]
    cells = list(cells_of(tasks, models, engines, grid.shots, grid.seeds, grid.settings, notes))
    if not cells:
        raise UserError(f"nothing to run: {notes[-1]}")
    if cluster is not None:
        check_ray()
    with locked(folder):
        remove_unfinished(folder)
        agree(folder / CONFIG, _shared(grid), {name: one.identity for name, one in by_name.items()})
        rows = read_rows(folder / TABLE, KEY)
        done = {_key(row) for row in rows}
        todo = [cell for cell in cells if not _keys(cell, grid, shifts) <= done]
        fitted: dict[int, list[Row]] = {}
        failed: dict[int, str] = {}
        with closing(_fitted(todo, by_name, grid, shifts, cluster)) as cells_as_they_end:
            for number, fresh in track(cells_as_they_end, "Protocol", len(todo)):
                if isinstance(fresh, UserError):
                    failed[number] = f"{_said(todo[number])}: {fresh}"
                    continue
                fitted[number] = [row for row in fresh if _key(row) not in done]
                so_far = [*rows, *(row for place in sorted(fitted) for row in fitted[place])]
                write_rows(folder / TABLE, so_far, COLUMNS)
        rows += [row for place in sorted(fitted) for row in fitted[place]]
        failures = [failed[place] for place in sorted(failed)]
    return Outcome(tuple(rows), tuple(dict.fromkeys(notes)), tuple(failures), len(todo) - len(failures))


def _fitted(
    cells: Sequence[Cell],
    data_sets: Mapping[str, Prepared],
    grid: Grid,
    shifts: Sequence[ShiftedTask],
    cluster: Cluster | None,
) -> Generator[tuple[int, list[Row] | UserError], None, None]:
    """The rows of every cell by number as it ends, or why it could not be fitted."""
    if cluster is None:
        for number, cell in enumerate(cells):
            try:
                yield number, _rows_of(cell, data_sets[cell.task.name], grid, _shifts_of(cell, shifts))
            except UserError as error:
                yield number, error
        return
    places = {name: place for place, name in enumerate(data_sets)}
    shared = [
        (prepared, grid, shifts if name == IMAGENET.folder else ()) for name, prepared in data_sets.items()
    ]
    items = [(places[cell.task.name], (cell.settings, cell.shots, cell.seed)) for cell in cells]
    if items:
        yield from spread(cluster, _fitted_there, shared, items, grid.settings.device)


def _fitted_there(
    shared: tuple[Prepared, Grid, Sequence[ShiftedTask]], arm: tuple[FitSettings, int | None, int]
) -> list[Row]:
    prepared, grid, shifts = shared
    return _rows_of(Cell(prepared.task, *arm), prepared, grid, shifts)


def _rows_of(cell: Cell, prepared: Prepared, grid: Grid, shifts: Sequence[ShiftedTask]) -> list[Row]:
    drawn = few_shot(cell.task, cell.shots, cell.seed, prepared.pool)
    if grid.base_to_new:
        base, new = halves(drawn)
        fitted = fit(base, cell.settings)
        known = score_posterior(fitted.posterior, base, fitted.seconds)
        unknown = score_posterior(on_new_classes(fitted.posterior, new), new, fitted.seconds)
        return [_row(known, BASE), _row(unknown, NEW)]
    fitted = fit(drawn, cell.settings)
    rows = [_row(score_posterior(fitted.posterior, drawn, fitted.seconds), ALL)]
    for shifted in shifts:
        run = score_posterior(fitted.posterior, shifted.task, fitted.seconds, among=shifted.classes)
        rows.append(_row(run, SHIFT))
    return rows


def _shifts_of(cell: Cell, shifts: Sequence[ShiftedTask]) -> Sequence[ShiftedTask]:
    return shifts if cell.task.name == IMAGENET.folder else ()


def _keys(cell: Cell, grid: Grid, shifts: Sequence[ShiftedTask]) -> set[tuple[str, ...]]:
    """The keys of the rows that a cell ends with."""
    own = (BASE, NEW) if grid.base_to_new else (ALL,)
    parts = [(cell.task.name, part) for part in own]
    parts += [(shifted.task.name, SHIFT) for shifted in _shifts_of(cell, shifts)]
    arm = (cell.settings.model, cell.settings.engine, str(cell.shots), str(cell.seed))
    return {(*part, *arm) for part in parts}


def _row(run: Run, part: str) -> Row:
    return {**run.row, PART: part}


def _key(row: Row) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def _shared(grid: Grid) -> Mapping[str, Any]:
    """What all rows of a table have in common, by the names of the options."""
    settings = {name: value for name, value in asdict(grid.settings).items() if name not in NOT_SHARED}
    return {"base-to-new": grid.base_to_new, **{name.replace("_", "-"): v for name, v in settings.items()}}


def _said(cell: Cell) -> str:
    arm = f"{cell.settings.model}, {cell.settings.engine}"
    return f"{cell.task.name}, {arm}, {cell.shots} shots, seed {cell.seed}"
