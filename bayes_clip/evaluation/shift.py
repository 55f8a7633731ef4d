"""A posterior on pictures made worse on purpose: what it says of them by kind and severity of corruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bayes_clip.data.checks import unit_rows
from bayes_clip.data.corruptions import CORRUPTIONS, SEVERITIES, check_corruption, corrupted_pictures
from bayes_clip.data.rows import Rows
from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation import metrics
from bayes_clip.evaluation.alignment import in_class_order
from bayes_clip.evaluation.results import Cell
from bayes_clip.posterior import Posterior

CLEAN = "none"
ALL = "all"
SHIFT_COLUMNS = (
    *("task", "corruption", "severity", "n_query", "accuracy", "nll", "ece"),
    *("novelty_mean", "novelty_auroc", "confidence"),
)


@dataclass(frozen=True)
class Shifted:
    """One row for the clean pictures (corruption "none", severity 0), then one per corruption and severity.

    `rows` hold SHIFT_COLUMNS: NLL in nats, ECE of 15 equal-width bins, the mean novelty score, the AUROC with
    which it tells corrupted pictures from the same ones clean (empty for these), and the mean probability of
    the predicted class.
    """

    rows: tuple[dict[str, Cell], ...]
    novelty_score: str  # what the score is
    task: str
    notes: tuple[str, ...] = ()


def chosen_corruptions(names: Sequence[str], severities: Sequence[int]) -> list[tuple[str, int]]:
    """Every corruption at every severity; ``all`` stands for all eight.

    Raises:
        UserError: an unknown corruption or severity, or none at all.
    """
    wanted = [name for asked in names for name in (CORRUPTIONS if asked == ALL else [asked])]
    chosen = [(name, severity) for name in dict.fromkeys(wanted) for severity in sorted(set(severities))]
    if not chosen:
        raise UserError(f"--corruptions: none asked for; give {ALL}, or some of {', '.join(CORRUPTIONS)}")
    for name, severity in chosen:
        check_corruption(name, severity)
    return chosen


def shift(
    posterior: Posterior,
    task: Task,
    corruptions: Sequence[str] = (ALL,),
    severities: Sequence[int] = SEVERITIES,
    most: int | None = None,
    seed: int = 0,
) -> Shifted:
    """Corrupt the query pictures of `task`, encode them, and ask `posterior` about them.

    Each picture's accident depends on `seed` and its number, and grows with the severity. `most`: at most so
    many query pictures, by a draw from `seed`. Classes are matched by name.

    Raises:
        UserError: a task without pictures or encoder, an unknown corruption, or classes that the posterior
            does not know.
    """
    chosen = chosen_corruptions(corruptions, severities)
    task = _with_fewer_queries(in_class_order(task, posterior.class_names), most, seed)
    if task.encoder is None or task.query_pictures is None:
        raise UserError(
            f"{task.name}: features without pictures, so there is nothing to corrupt; give the pictures "
            "themselves: a folder, a CSV of paths and labels, or a built-in task"
        )
    labels = task.query_labels.cpu().numpy()
    clean, before = _scores(posterior, task.query_rows, labels, None)
    place: dict[str, Cell] = {"task": task.name, "n_query": len(labels)}
    rows = [{**place, "corruption": CLEAN, "severity": 0, **clean}]
    for name, severity in chosen:
        worse = corrupted_pictures(task.query_pictures, name, severity, seed)
        raw = task.encoder.encode_images(worse, description=f"{name} {severity}", total=len(worse)).clone()
        features, norms = unit_rows(raw, f"{task.name}, {name} {severity}: features")
        scores, _ = _scores(posterior, Rows(features, norms, worse), labels, before)
        rows.append({**place, "corruption": name, "severity": severity, **scores})
    return Shifted(tuple(rows), posterior.novelty_score, task.name, task.notes)


def _scores(
    posterior: Posterior, rows: Rows, labels: np.ndarray, clean_novelty: np.ndarray | None
) -> tuple[dict[str, Cell], np.ndarray]:
    """The measured columns of a row of the table, and the novelty scores (M,)."""
    prediction = posterior.predict(rows)
    probabilities = prediction.probabilities.double().cpu().numpy()
    novelty = prediction.novelty.double().cpu().numpy()
    found: dict[str, Cell] = {
        "accuracy": metrics.accuracy(probabilities, labels),
        "nll": metrics.nll(probabilities, labels),
        "ece": metrics.ece(probabilities, labels),
        "novelty_mean": float(novelty.mean()),
        "novelty_auroc": "" if clean_novelty is None else metrics.auroc(clean_novelty, novelty),
        "confidence": float(probabilities.max(1).mean()),
    }
    return found, novelty


def _with_fewer_queries(task: Task, most: int | None, seed: int) -> Task:
    if most is None or most >= len(task.query_labels):
        return task
    if most < 1:
        raise UserError(f"--pictures {most}: at least one picture is needed")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(task.query_labels))[:most])
    return task.with_query(torch.from_numpy(drawn))
