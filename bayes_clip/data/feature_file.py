"""Feature tasks and feature files on disk, in ``.npz`` and ``.safetensors``.

Feature task: ``support_features`` (N, D), ``support_labels`` (N,), ``query_features`` (M, D),
``query_labels`` (M,); optional ``text_features`` (C, D), ``class_names`` (C,), ``logit_scale`` (),
``ood_features`` (K, D), ``backbone``. Feature file: ``features`` (N, D), and where known ``paths``,
``labels``, ``class_names``, ``backbone``, ``precision``. Rows are normalised on loading and their norms kept;
files are written with the norms put back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayes_clip.data.arrays import read_arrays, write_arrays
from bayes_clip.data.checks import class_labels, labels_below, names_of_classes, unit_rows
from bayes_clip.data.rows import Pictures, Rows
from bayes_clip.data.task import Task, make_task
from bayes_clip.errors import UserError

TASK_REQUIRED = ("support_features", "support_labels", "query_features", "query_labels")
TASK_OPTIONAL = ("text_features", "class_names", "logit_scale", "ood_features", "backbone")
FILE_OPTIONAL = ("paths", "labels", "class_names", "backbone", "precision")


@dataclass(frozen=True, eq=False, repr=False)
class FeatureFile:
    """Encoded images: what ``features`` writes and what ``predict`` reads. Build with `make_feature_file`."""

    features: Tensor  # (N, D) float32, unit rows
    norms: Tensor  # (N,) lengths before normalisation
    paths: tuple[str, ...] | None = None  # length N
    labels: Tensor | None = None  # (N,) int64
    class_names: tuple[str, ...] | None = None
    backbone: str | None = None  # fingerprint of the encoder
    precision: str | None = None  # what it ran in: float32, or float16 on a GPU; features differ by rounding
    notes: tuple[str, ...] = ()
    pictures: Pictures | None = None  # where the features were just made of them

    @property
    def rows(self) -> Rows:
        """The rows, for programs that take more than unit features."""
        return Rows(self.features, self.norms, self.pictures)

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        rows, dimension = self.features.shape
        labelled = "" if self.labels is None else ", labelled"
        return f"FeatureFile({rows} rows, {dimension} features{labelled}, backbone={self.backbone})"


def make_feature_file(
    features: Any,
    *,
    paths: Sequence[str] | None = None,
    labels: Any = None,
    class_names: Any = None,
    backbone: str | None = None,
    precision: str | None = None,
    notes: Sequence[str] = (),
    source: str = "features",
) -> FeatureFile:
    """Check and normalise raw arrays into a `FeatureFile`.

    Raises:
        UserError: names `source`, the array and the row, and says how to mend it.
    """
    unit, norms = unit_rows(features, f"{source}: features")
    names = None if class_names is None else names_of_classes(class_names, f"{source}: class_names")
    checked = None
    if labels is not None:
        checked = class_labels(labels, f"{source}: labels", len(unit))
        if names is not None:
            labels_below(checked, len(names), f"{source}: labels")
    if paths is not None and len(paths) != len(unit):
        raise UserError(f"{source}: paths has {len(paths)} entries for {len(unit)} rows; give one per row")
    return FeatureFile(
        features=unit,
        norms=norms,
        paths=None if paths is None else tuple(str(path) for path in paths),
        labels=checked,
        class_names=names,
        backbone=backbone,
        precision=precision,
        notes=tuple(notes),
    )


def load_feature_task(path: str | Path, partial: bool = False) -> Task:
    """Load a feature task from `path`; its name is the file's stem.

    A `partial` one needs no query rows, and a labelled feature file will do.

    Raises:
        UserError: names the file, the array and the row, and says how to mend it.
    """
    path = Path(path)
    arrays, unread = read_arrays(path, (*TASK_REQUIRED, *TASK_OPTIONAL, "features", "labels"))
    if partial and {"features", "labels"} <= arrays.keys() and "support_features" not in arrays:
        arrays["support_features"], arrays["support_labels"] = arrays["features"], arrays["labels"]
        unread = [key for key in unread if key not in ("paths", "precision")]
    required = TASK_REQUIRED[:2] if partial and "query_features" not in arrays else TASK_REQUIRED
    missing = [key for key in required if key not in arrays]
    if missing and "features" in arrays:
        what = "a feature file without labels" if partial else "a feature file, not a task"
        raise UserError(f"{path}: {what}; a task holds {', '.join(required)}")
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing; a feature task holds {', '.join(required)}")
    if arrays.pop("labels", None) is not None and "features" not in arrays:
        unread = [*unread, "labels"]
    arrays.pop("features", None)
    arrays["backbone"] = _optional_text(arrays.get("backbone"), f"{path}: backbone")
    notes = _note_unread(path, unread)
    return make_task(name=path.stem, source=str(path), notes=notes, partial=partial, **arrays)


def save_feature_task(task: Task, path: str | Path) -> None:
    """Write `task` to `path` as a feature task; pictures, notes and the draw's seed are not part of one.

    Raises:
        UserError: unknown suffix or a place that cannot be written.
    """
    arrays = {
        "support_features": _scaled(task.support_features, task.support_norms),
        "support_labels": task.support_labels,
        "logit_scale": torch.tensor(task.logit_scale, dtype=torch.float64),
    }
    if len(task.query_labels):  # a partial task may have none
        arrays["query_features"] = _scaled(task.query_features, task.query_norms)
        arrays["query_labels"] = task.query_labels
    if task.text_features is not None:
        arrays["text_features"] = task.text_features
    if task.ood_features is not None:
        arrays["ood_features"] = _scaled(task.ood_features, task.ood_norms)
    write_arrays(Path(path), arrays, {"class_names": task.class_names, "backbone": task.backbone})


def load_feature_file(path: str | Path) -> FeatureFile:
    """Load a feature file, or the query side of a feature task.

    Raises:
        UserError: names the file, the array and the row, and says how to mend it.
    """
    path = Path(path)
    query = ("query_features", "query_labels")
    arrays, unread = read_arrays(path, ("features", *FILE_OPTIONAL, *query, *TASK_REQUIRED, *TASK_OPTIONAL))
    if "features" in arrays:
        features, labels = arrays["features"], arrays.get("labels")
    elif "query_features" in arrays:
        features, labels = arrays["query_features"], arrays.get("query_labels")
    else:
        raise UserError(f"{path}: no features in it; a feature file holds 'features' (rows, D)")
    paths = arrays.get("paths")
    return make_feature_file(
        features,
        paths=None if paths is None else names_of_classes(paths, f"{path}: paths"),
        labels=labels,
        class_names=arrays.get("class_names"),
        backbone=_optional_text(arrays.get("backbone"), f"{path}: backbone"),
        precision=_optional_text(arrays.get("precision"), f"{path}: precision"),
        notes=_note_unread(path, unread),
        source=str(path),
    )


def save_feature_file(feature_file: FeatureFile, path: str | Path) -> None:
    """Write `feature_file` to `path`, whole or not at all.

    Raises:
        UserError: unknown suffix or a place that cannot be written.
    """
    arrays = {"features": _scaled(feature_file.features, feature_file.norms)}
    if feature_file.labels is not None:
        arrays["labels"] = feature_file.labels
    strings = {
        "paths": feature_file.paths,
        "class_names": feature_file.class_names,
        "backbone": feature_file.backbone,
        "precision": feature_file.precision,
    }
    write_arrays(Path(path), arrays, strings)


def _scaled(features: Tensor, norms: Tensor | None) -> Tensor:
    return features if norms is None else features * norms[:, None]


def _optional_text(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "U":
        return str(value)
    raise UserError(f"{where} is no text; store it as one string")


def _note_unread(path: Path, unread: Sequence[str]) -> tuple[str, ...]:
    return (f"{path.name}: {', '.join(sorted(unread))} not used",) if unread else ()
