"""Every model program, engine, number of shots and seed asked for, fitted and tried on the query set."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from bayes_clip.cluster import Cluster, check_ray, spread
from bayes_clip.data.task import Task, few_shot
from bayes_clip.errors import UserError, nearest
from bayes_clip.evaluation.alignment import in_class_order
from bayes_clip.evaluation.engine_checks import SelfCheck, remark, self_check
from bayes_clip.evaluation.kept_cells import KeptCells, Scored, cell_name, queried
from bayes_clip.evaluation.results import Comparison, Run, score
from bayes_clip.evaluation.suspects import label_remarks
from bayes_clip.fitting import Fit, FitSettings, fit
from bayes_clip.inference import DEFAULT_ENGINES, ENGINES, NO_PRIOR
from bayes_clip.model import find_model, list_models
from bayes_clip.posterior import Posterior
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
    notes += [note for draw in _draws(cells) for note in label_remarks(draw, settings.device)]
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
    found = _self_check(fitted.posterior)
    notes = [f"{drawn.name}: {note}" for note in drawn.notes if note not in task.notes]
    return Scored(
        run_of(fitted, drawn),
        (*notes, *fitted.notes, *([remark(settings, found)] if found.fails else [])),
    )


def _draws(cells: Sequence[Cell]) -> Iterator[Task]:
    """Every support set that was fitted, once."""
    drawn = {(cell.task.name, cell.shots, cell.seed if cell.shots else 0): cell for cell in cells}
    return (few_shot(cell.task, cell.shots, cell.seed) for cell in drawn.values())


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


def run_of(fitted: Fit, task: Task) -> Run:
    """Score a fit on its task's query set."""
    return score_posterior(fitted.posterior, task, fit_seconds=fitted.seconds)


def score_posterior(
    posterior: Posterior,
    task: Task,
    fit_seconds: float | None = None,
    among: Sequence[int] | None = None,
) -> Run:
    """Score a posterior on a task's query set, and its novelty on the task's OOD rows where it has some.

    Classes are matched by name: the task may have them in another order, or not all of them. `among`: query
    rows are of these classes of the posterior (in rising order), and known to be: probabilities are divided
    by what those classes have together. For point estimates that is the softmax over those classes alone.

    Raises:
        UserError: the task has another number of features, or classes that the posterior does not know.
    """
    task = in_class_order(task, posterior.class_names)
    start = time.perf_counter()
    prediction = posterior.predict(task.query_rows)
    predict_seconds = time.perf_counter() - start
    outside = None if task.ood_rows is None else posterior.predict(task.ood_rows)
    probabilities, labels = _array(prediction.probabilities), task.query_labels.cpu().numpy()
    if among is not None:
        probabilities, labels = given_among(probabilities, labels, among)
    novelty = _array(prediction.novelty)
    ood_novelty = None if outside is None else _array(outside.novelty)
    source = posterior.source
    row = {
        "task": task.name,
        "model": source.settings.model,
        "engine": source.settings.engine,
        "shots": "" if source.shots is None else source.shots,
        "seed": "" if source.seed is None else source.seed,
        "n_support": source.support_rows,
        "n_query": len(labels),
        **score(probabilities, labels, novelty, ood_novelty),
        "prior_variance": "" if source.settings.engine in NO_PRIOR else source.prior_variance,
        "fit_seconds": "" if fit_seconds is None else fit_seconds,
        "predict_seconds": predict_seconds,
        "covariance": source.settings.family,
        "rule": source.settings.update_rule if source.settings.engine == "ekf" else "",
        "predictive": posterior.predictive,
        "novelty_score": posterior.novelty_score,
        "backbone": source.backbone or "",
        "self_check": _self_check(posterior).verdict,
    }
    return Run(
        row=row,
        probabilities=probabilities,
        labels=labels,
        novelty=novelty,
        epistemic=_array(prediction.epistemic),
        ood_novelty=ood_novelty,
        ood_probabilities=None if outside is None else _array(outside.probabilities),
    )


def given_among(
    probabilities: np.ndarray, labels: np.ndarray, among: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (M, n) given that the class is one of `among` (n, rising), and labels in its numbering.

    A row that gives all of them nothing (float64 underflows) is uniform.
    """
    chosen = probabilities[:, list(among)]
    total = chosen.sum(1, keepdims=True)
    even = np.full_like(chosen, 1 / len(among))
    return np.divide(chosen, total, out=even, where=total > 0), np.searchsorted(among, labels)


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


def _self_check(posterior: Posterior) -> SelfCheck:
    """What the engine's own check said near the posterior's prior variance of a logit, s² v."""
    source = posterior.source
    return self_check(source.settings, source.prior_variance * posterior.program.logit_scale**2)


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
