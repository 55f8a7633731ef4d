"""A data set ready for many draws: only the support pictures that some draw takes are encoded, and once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayes_clip.backbone.templates import read_templates
from bayes_clip.data.checks import unit_rows
from bayes_clip.data.coop_dataset import scan_coop_dataset
from bayes_clip.data.coop_layouts import IMAGENET, Layout
from bayes_clip.data.dataset_root import DataSet, Found
from bayes_clip.data.encode import Encoded, encode_files, picture_files
from bayes_clip.data.folder_task import folder_task
from bayes_clip.data.image_folder import ImageFolder, Pictures, scan_folder
from bayes_clip.data.imagenet import imagenet_ids, scan_shift
from bayes_clip.data.resolve import load_task
from bayes_clip.data.sources import Source
from bayes_clip.data.task import Pool, Task, drawn_rows

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone


@dataclass(frozen=True)
class Draws:
    """Which draws there will be: `shots` images per class for each seed."""

    shots: Sequence[int]
    seeds: Sequence[int]

    def rows(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """The rows (n,), rising, that any of them takes: draws are nested, so those of the most shots."""
        drawn = [drawn_rows(labels, classes, max(self.shots), seed) for seed in self.seeds]
        return np.unique(np.concatenate([rows for draw in drawn for rows in draw]))


@dataclass(frozen=True)
class Reading:
    """How pictures become features, the same for every data set."""

    backbone: Backbone | None  # None: there are no pictures, or feature tasks alone
    templates: str | None = None  # None: CoOp's for its data sets, else the backbone's own
    skip_broken: bool = False
    allow_unknown_classes: bool = False


@dataclass(frozen=True)
class Prepared:
    """A task with the support rows that some draw takes, the pool they are from, and what it is made of."""

    task: Task
    pool: Pool
    identity: dict[str, Any]  # tells whether rows made on another day are of the same data


@dataclass(frozen=True)
class ShiftedTask:
    """ImageNet's task with the query set of a variant, whose rows are known to be of `classes`."""

    task: Task
    classes: tuple[int, ...]


def prepare_all(
    found: Found, reading: Reading, draws: Draws, device: str = "cpu"
) -> tuple[list[Prepared], list[ShiftedTask]]:
    """Every data set found, and the variants of ImageNet where they were asked for.

    All are listed before any is encoded, so that what is missing is said at once. Without a backbone
    ``pocket_clip`` on `device` encodes what pictures there are.

    Raises:
        UserError: what `list_pictures_of`, `prepare` or `prepare_shift` refuses.
    """
    listed = [(data_set, list_pictures_of(data_set)) for data_set in found.data_sets]
    if reading.backbone is None and any(folder is not None for _, folder in listed):
        from bayes_clip.backbone.encoder import load_backbone  # open_clip takes seconds to import

        pictures = replace(reading, backbone=load_backbone(device=device))
    else:
        pictures = reading  # a feature task has the encoder that was asked for, never the default
    prepared = [
        prepare(data_set, folder, reading if folder is None else pictures, draws)
        for data_set, folder in listed
    ]
    if not found.shifts:
        return prepared, []
    by_name = {data_set.name: (data_set, one) for (data_set, _), one in zip(listed, prepared, strict=True)}
    source, imagenet = by_name[IMAGENET.folder]
    ids = imagenet_ids(source.path, IMAGENET)
    shifts = [prepare_shift(path, layout, ids, imagenet.task, pictures) for layout, path in found.shifts]
    return prepared, shifts


def list_pictures_of(data_set: DataSet) -> ImageFolder | None:
    """The listing of a data set of pictures, before anything is encoded; None for a feature task.

    Raises:
        UserError: what `scan_coop_dataset` or `scan_folder` refuses.
    """
    if data_set.is_features:
        return None
    return scan_coop_dataset(data_set.path) if data_set.is_coop else scan_folder(data_set.path)


def prepare(data_set: DataSet, folder: ImageFolder | None, reading: Reading, draws: Draws) -> Prepared:
    """Encode what is needed of a data set; `folder` is its listing.

    A feature task has the encoder if its features are of it. With `skip_broken` all support pictures are
    encoded, because a draw is from those that can be read.

    Raises:
        UserError: what `load_task` or `folder_task` refuses.
    """
    if folder is None:
        task = load_task(data_set.path)
        if reading.backbone is not None and _is_of(task, reading.backbone):
            task = load_task(data_set.path, reading.backbone, reading.templates)
        pool = Pool(task.support_labels.numpy(), np.arange(len(task.support_labels)))
        return Prepared(task, pool, _identity(task, pool, (task.support_features, task.query_features)))
    assert reading.backbone is not None
    labels = np.array(folder.support.labels)
    rows = np.arange(len(labels))
    if not reading.skip_broken:
        rows = draws.rows(labels, len(folder.class_names))
        folder = replace(folder, support=_picked(folder.support, rows))
    task = folder_task(
        folder,
        reading.backbone,
        None if reading.templates is None else read_templates(reading.templates),
        reading.skip_broken,
        reading.allow_unknown_classes,
        encode=_without_thumbnails,
    )
    task = replace(task, name=data_set.name)  # a link has the name of the data set, its target any
    if reading.skip_broken:
        labels = task.support_labels.numpy()
        rows = np.arange(len(labels))
    pool = Pool(labels, rows)
    return Prepared(task, pool, _identity(task, pool))


def prepare_shift(
    path: Path, layout: Layout, ids: Sequence[str], imagenet: Task, reading: Reading
) -> ShiftedTask:
    """Encode a variant of ImageNet; `imagenet` is ImageNet's task, and `ids` its classes' WordNet ids.

    Raises:
        UserError: what `scan_shift` or `encode_files` refuses.
    """
    assert reading.backbone is not None
    shifted = scan_shift(path, layout, ids)
    encoded = encode_files(reading.backbone, shifted.pictures.paths, skip_broken=reading.skip_broken)
    features, norms = unit_rows(encoded.features, f"{path}: features")
    task = replace(
        imagenet,
        name=layout.folder,
        query_features=features,
        query_norms=norms,
        query_labels=torch.tensor(shifted.pictures.labels)[list(encoded.kept)],
        query_pictures=picture_files(shifted.pictures.paths, encoded.kept),
        query_images=None,
        ood_features=None,
        ood_norms=None,
        ood_pictures=None,
        notes=encoded.notes,
    )
    return ShiftedTask(task, shifted.classes)


def _without_thumbnails(
    backbone: Backbone,
    paths: Sequence[Path | Source],
    *,
    skip_broken: bool = False,
    with_thumbnails: bool = False,
    description: str = "encoding pictures",
) -> Encoded:
    """As `encode_files`; nothing is read again for pictures that no report of a protocol shows."""
    return encode_files(backbone, paths, skip_broken=skip_broken, description=description)


def _is_of(task: Task, backbone: Backbone) -> bool:
    """Whether a feature task's features may be of `backbone`: by fingerprint where it is known, and width."""
    return task.backbone in (None, backbone.fingerprint) and task.num_features == backbone.feature_dim


def _picked(pictures: Pictures, rows: np.ndarray) -> Pictures:
    assert pictures.labels is not None
    return Pictures(
        tuple(pictures.paths[row] for row in rows), tuple(pictures.labels[row] for row in rows.tolist())
    )


def _identity(task: Task, pool: Pool, features: Sequence[torch.Tensor] = ()) -> dict[str, Any]:
    """Classes, numbers of rows, encoder and prompts, and a digest of the labels (and of bare features)."""
    digest = hashlib.sha256("\n".join(task.class_names).encode())
    for labels in (pool.labels, task.query_labels.numpy()):
        digest.update(labels.astype("<i8").tobytes())
    for rows in features:
        digest.update(rows.numpy().tobytes())
    return {
        "classes": task.num_classes,
        "support": len(pool.labels),
        "query": len(task.query_labels),
        "backbone": task.backbone,
        "templates": list(task.templates),
        "content": digest.hexdigest()[:16],
    }
