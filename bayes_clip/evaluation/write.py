"""The files of a comparison that programs read: tables as CSV, predictions.npz, config.json."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bayes_clip.evaluation.intervals import INTERVAL_COLUMNS
from bayes_clip.evaluation.results import Cell, Comparison
from bayes_clip.evaluation.row_tests import PAIRED_COLUMNS
from bayes_clip.versions import installed_versions

Rows = Sequence[Mapping[str, Cell]]


def write_tables(comparison: Comparison, folder: Path, intervals: Rows, pairs: Rows) -> None:
    """Write metrics, intervals and pairs as CSV, predictions.npz and config.json into an existing folder."""
    columns = comparison.columns()
    write_csv(folder / "metrics.csv", columns, [run.row for run in comparison.runs])
    write_csv(folder / "intervals.csv", INTERVAL_COLUMNS, intervals)
    write_csv(folder / "paired.csv", PAIRED_COLUMNS, pairs)
    np.savez_compressed(folder / "predictions.npz", **prediction_arrays(comparison))  # type: ignore[arg-type]
    config = full_config(comparison)
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
    """One line per row; numbers in the shortest form that reads back to the same float64."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)


def prediction_arrays(comparison: Comparison) -> dict[str, np.ndarray]:
    """The arrays of predictions.npz. `<row>` is the row of metrics.csv, from 0; M query rows, C classes.

    `probabilities_<row>` (M, C), `labels_<row>` (M,), `novelty_<row>` (M,), `epistemic_<row>` (M,), and with
    out-of-distribution rows `ood_novelty_<row>` (K,), `ood_probabilities_<row>` (K, C);
    `class_names_<task>` (C,) text. Probabilities and scores are float64 as they were scored.
    """
    arrays: dict[str, np.ndarray] = {}
    for index, run in enumerate(comparison.runs):
        for name in ("probabilities", "labels", "novelty", "epistemic", "ood_novelty", "ood_probabilities"):
            values = getattr(run, name)
            if values is not None:
                arrays[f"{name}_{index}"] = np.asarray(values)
    for name, task in comparison.tasks.items():
        arrays[f"class_names_{name}"] = np.array(task.class_names, dtype=np.str_)
    return arrays


def full_config(comparison: Comparison) -> dict[str, Any]:
    """What was asked, with the notes, and the versions it ran under where the config does not tell them."""
    return {"versions": installed_versions(), **comparison.config, "notes": list(comparison.notes)}


def _plain(value: Any) -> Cell:
    """numpy scalars as Python's own: csv writes their repr otherwise."""
    return value.item() if isinstance(value, np.generic) else value
