"""Every model program, engine, number of shots and seed asked for, fitted and tried on the query set."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from bayes_clip.cluster import Cluster, check_ray, spread
from bayes_clip.data.task import Task, few_shot
from bayes_clip.errors import UserError, nearest
from bayes_clip.evaluation.engine_checks import remark
from bayes_clip.evaluation.kept_cells import KeptCells, Scored, cell_name, queried
from bayes_clip.evaluation.results import Comparison
from bayes_clip.evaluation.scoring import checked_near, run_of
from bayes_clip.fitting import FitSettings, fit
from bayes_clip.inference import DEFAULT_ENGINES, ENGINES
from bayes_clip.model import find_model, list_models
from bayes_clip.progress import track
from bayes_clip.runnable import why_not


@dataclass(frozen=True)
class Cell:
    """One fit that a comparison asks for."""

    task: Task
    settings: FitSettings
    shots: int | None
    seed: int


def compare(
    tasks: Sequence[Task],
    *,
    models: Sequence[str] = ("linear_probe",),
    engines: Sequence[str] = DEFAULT_ENGINES,
    shots: Sequence[int | None] = (None,),
    seeds: Sequence[int] = (0,),
    settings: FitSettings | None = None,
    cluster: Cluster | None = None,
    keep: Path | str | None = None,
    resume: bool = False,
) -> Comparison:
    """Fit and score every combination; ``settings`` holds what they share.

    `shots` None is the whole support set. ``all`` as a model or engine stands for every one (nuts left out:
    it is for small problems). What cannot be fitted (`runnable.why_not`) is left out with a note.

    On a `cluster` the fits run at the same time, one a worker: rows, their order and notes are the same (to
    the last bit with as many threads a process; the seconds are others). Finished fits stay in the folder
    `keep`; with `resume` those that an earlier run left there are not fitted again.

    Raises:
        UserError: an unknown name, two tasks of one name, what `fit` refuses, or what `spread` does.
    """
    settings = settings or FitSettings()
    if cluster is not None:
        check_ray()
    models, engines = named_arms(models, engines)
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("two tasks have the same name; rename one of the files")
    notes = [f"{task.name}: {note}" for task in tasks for note in task.notes]
    cells = list(cells_of(tasks, models, engines, shots, seeds, settings, notes))
    if None in shots and len(seeds) > 1:
        notes.append("the whole support set is no draw: there every seed repeats the same fit")
    if not cells:
        raise UserError(f"nothing to compare: {notes[-1]}")
    kept = None if keep is None else KeptCells(Path(keep))
    if kept is not None and not resume:
        kept.clear()
    done: dict[int, Scored] = {}
    with closing(_finished(cells, tasks, cluster, kept)) as finished:
        done.update(track(finished, "Comparing", len(cells)))
    results = [done[number] for number in range(len(cells))]
    notes += [note for scored in results for note in scored.notes]
    config = {
        "tasks": [task.name for task in tasks],
        "models": list(models),
        "engines": list(engines),
        "shots": list(shots),
        "seeds": list(seeds),
        "settings": asdict(settings),
    }
    runs = tuple(scored.run for scored in results)
    return Comparison(runs, {task.name: task for task in tasks}, config, tuple(dict.fromkeys(notes)))


def fit_cell(task: Task, arm: tuple[FitSettings, int | None, int]) -> Scored:
    """One fit on a draw of `task`, tried on its query set: a cell's settings, shots and seed."""
    settings, shots, seed = arm
    drawn = few_shot(task, shots, seed)
    fitted = fit(drawn, settings)
    found = checked_near(fitted.posterior)
    notes = [f"{drawn.name}: {note}" for note in drawn.notes if note not in task.notes]
    return Scored(
        run_of(fitted, drawn),
        (*notes, *fitted.notes, *([remark(settings, found)] if found.fails else [])),
    )


def _finished(
    cells: Sequence[Cell], tasks: Sequence[Task], cluster: Cluster | None, kept: KeptCells | None
) -> Generator[tuple[int, Scored], None, None]:
    """Every cell by number as it ends, those first that were kept.

    A cell is a single fit: that is what takes the time, the draws are the same whoever makes them, and the
    features of a task were made once, before, and go to each worker once.
    """
    places = {task.name: place for place, task in enumerate(tasks)}
    names: dict[int, str] = {}
    if kept is not None:
        tried = {task.name: queried(task) for task in tasks}
        names = {
            number: cell_name(cell.task, cell.settings, cell.shots, cell.seed, tried[cell.task.name])
            for number, cell in enumerate(cells)
        }
    todo = []
    for number in range(len(cells)):
        known = None if kept is None else kept.read(names[number])
        if known is None:
            todo.append(number)
        else:
            yield number, known
    arms = {number: (cells[number].settings, cells[number].shots, cells[number].seed) for number in todo}
    if cluster is None:
        fresh: Iterator[tuple[int, Scored | UserError]] = (
            (number, fit_cell(cells[number].task, arms[number])) for number in todo
        )
    else:
        items = [(places[cells[number].task.name], arms[number]) for number in todo]
        device = cells[0].settings.device
        ended = spread(cluster, fit_cell, tasks, items, device) if items else iter(())
        fresh = ((todo[place], scored) for place, scored in ended)
    for number, scored in fresh:
        if isinstance(scored, UserError):
            raise scored
        if kept is not None:
            kept.write(names[number], scored)
        yield number, scored


def named_arms(models: Sequence[str], engines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Model programs and engines by name; ``all`` stands for every one but nuts.

    Raises:
        UserError: an unknown name, or a file that holds no program.
    """
    models = _expanded(models, list_models(), "--models")
    for model in models:
        find_model(model)
    return models, _expanded(engines, [name for name in ENGINES if name != "nuts"], "--engines", ENGINES)


def cells_of(
    tasks: Sequence[Task],
    models: Sequence[str],
    engines: Sequence[str],
    shots: Sequence[int | None],
    seeds: Sequence[int],
    settings: FitSettings,
    notes: list[str],
) -> Iterable[Cell]:
    """Every fit that can be done, in the order of `tasks`, `shots`, `seeds`, `models`, `engines`.

    What is left out, and why, joins `notes`.
    """
    for task, count, seed, model in product(tasks, shots, seeds, models):
        for engine in engines:
            refusal = why_not(find_model(model), model, engine, task)
            if refusal is not None:
                notes += [f"left out: {refusal}"]
                continue
            chosen = replace(settings, model=model, engine=engine)
            remarks = (*chosen.remarks, *chosen.allocation(task.num_classes, task.num_features))
            notes += [remark for remark in remarks if remark not in notes]
            yield Cell(task, chosen, count, seed)


def _expanded(
    asked: Sequence[str], every: Iterable[str], option: str, known: Iterable[str] | None = None
) -> list[str]:
    """`asked` with ``all`` replaced by every name, unknown names refused (paths of models pass)."""
    every = list(every)
    known = every if known is None else list(known)
    names = list(dict.fromkeys(name for item in asked for name in (every if item == "all" else [item])))
    for name in names:
        if name not in known and not name.endswith(".py"):
            what = option.removeprefix("--").removesuffix("s")
            raise UserError(
                f"{option} {name}: no such {what}.{nearest(name, known)} Known: {', '.join(known)}"
            )
    return names
