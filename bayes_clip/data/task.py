"""A task: support features with labels, query features with labels, and what is known of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bayes_clip.data.checks import class_labels, labels_below, positive_scalar, unit_rows
from bayes_clip.data.classes_of_task import (
    check_query_labels,
    class_names_of,
    classes_without_support,
    listed,
    repeated_names,
    unequal_shots,
)
from bayes_clip.data.rows import Pictures, Rows
from bayes_clip.errors import UserError

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone

DEFAULT_LOGIT_SCALE = 100.0


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """A few-shot classification task; build one with `make_task`, which checks it.

    N support rows, M query rows, K out-of-distribution rows, C classes, D features.
    """

    name: str
    support_features: Tensor  # (N, D) float32, unit rows
    support_labels: Tensor  # (N,) int64
    query_features: Tensor  # (M, D) float32, unit rows
    query_labels: Tensor  # (M,) int64
    class_names: tuple[str, ...]  # length C; "class 0", ... when unknown
    text_features: Tensor | None = None  # (C, D) float32, unit rows
    logit_scale: float = DEFAULT_LOGIT_SCALE
    ood_features: Tensor | None = None  # (K, D) float32, unit rows
    support_norms: Tensor | None = None  # (N,) lengths before normalisation
    query_norms: Tensor | None = None  # (M,)
    ood_norms: Tensor | None = None  # (K,)
    backbone: str | None = None  # fingerprint of the encoder; None for bare features
    query_images: Tensor | None = None  # (M, 3, h, w) uint8 thumbnails for the report
    shots: int | None = None  # images per class asked for; None: the whole support set
    seed: int | None = None  # of the draw of the support set
    notes: tuple[str, ...] = ()  # what the user should be told
    encoder: Backbone | None = None  # what made the features, for programs that work inside it
    templates: tuple[str, ...] = ()  # of the prompts; empty: the encoder's own
    support_pictures: Pictures | None = None  # N of them, where they are at hand
    query_pictures: Pictures | None = None
    ood_pictures: Pictures | None = None
    is_partial: bool = False  # more labels for a posterior: perhaps of some classes only, perhaps no queries

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def num_features(self) -> int:
        """D."""
        return self.support_features.shape[1]

    @property
    def support_rows(self) -> Rows:
        """The support side, for programs that take more than unit features."""
        return Rows(self.support_features, self.support_norms, self.support_pictures)

    @property
    def query_rows(self) -> Rows:
        """The query side."""
        return Rows(self.query_features, self.query_norms, self.query_pictures)

    @property
    def ood_rows(self) -> Rows | None:
        """The rows from elsewhere, where there are any."""
        return (
            None if self.ood_features is None else Rows(self.ood_features, self.ood_norms, self.ood_pictures)
        )

    def with_support(self, kept: Tensor) -> Task:
        """The same task with these support rows alone: indices, or a mask."""
        norms, pictures = self.support_norms, self.support_pictures
        return replace(
            self,
            support_features=self.support_features[kept],
            support_labels=self.support_labels[kept],
            support_norms=None if norms is None else norms[kept],
            support_pictures=None if pictures is None else pictures.pick(kept),
        )

    def with_query(self, kept: Tensor) -> Task:
        """The same task with these query rows alone: indices, or a mask."""
        norms, pictures, small = self.query_norms, self.query_pictures, self.query_images
        return replace(
            self,
            query_features=self.query_features[kept],
            query_labels=self.query_labels[kept],
            query_norms=None if norms is None else norms[kept],
            query_pictures=None if pictures is None else pictures.pick(kept),
            query_images=None if small is None else small[kept],
        )

    def __repr__(self) -> str:
        drawn = "" if self.shots is None else f", shots={self.shots}, seed={self.seed}"
        text = "with text" if self.text_features is not None else "no text"
        ood = "" if self.ood_features is None else f", ood={len(self.ood_features)}"
        return (
            f"Task({self.name!r}: {self.num_classes} classes, {self.num_features} features, {text}, "
            f"support={len(self.support_labels)}, query={len(self.query_labels)}{ood}{drawn})"
        )


def make_task(
    name: str,
    support_features: Any,
    support_labels: Any,
    query_features: Any = None,
    query_labels: Any = None,
    *,
    class_names: Any = None,
    text_features: Any = None,
    logit_scale: Any = None,
    ood_features: Any = None,
    backbone: str | None = None,
    query_images: Tensor | None = None,
    notes: Sequence[str] = (),
    source: str | None = None,
    partial: bool = False,
) -> Task:
    """Check and normalise raw arrays (numpy, torch or nested lists) into a `Task`.

    Features are scaled to unit rows and their norms kept. Without `class_names` the classes are
    ``class 0`` to the largest support label. A class with text features but no support row is allowed and
    noted; without text features every class needs a support row. `source` (a file name) opens refusals;
    it is `name` unless given. A `partial` task is only good to `update` a posterior: it may hold rows of some
    classes, even of one, and no query rows.

    Raises:
        UserError: names the source, the array and the row, and says how to mend it.
    """
    where = f"{source or name}: "
    support, support_norms = unit_rows(support_features, where + "support_features")
    labels = class_labels(support_labels, where + "support_labels", len(support))
    if query_features is None and partial:
        query, query_norms, truth = support[:0], support_norms[:0], labels[:0]
    else:
        query, query_norms = unit_rows(query_features, where + "query_features", support.shape[1])
        truth = class_labels(query_labels, where + "query_labels", len(query))
    text = None
    if text_features is not None:
        text, _ = unit_rows(text_features, where + "text_features", support.shape[1])
    ood, ood_norms = None, None
    if ood_features is not None:
        ood, ood_norms = unit_rows(ood_features, where + "ood_features", support.shape[1])
    scale = DEFAULT_LOGIT_SCALE
    if logit_scale is not None:
        scale = positive_scalar(logit_scale, where + "logit_scale")
    names = class_names_of(class_names, text, labels, where, partial)
    labels_below(labels, len(names), where + "support_labels")
    labels_below(truth, len(names), where + "query_labels")
    unsupported: list[str] = []
    if not partial:
        check_query_labels(truth, labels, names, text is not None, where)
        unsupported = classes_without_support(labels, names, text is not None, where)
    if query_images is not None and (query_images.ndim != 4 or len(query_images) != len(query)):
        shape = tuple(query_images.shape)
        raise UserError(f"{where}query_images has shape {shape}; needs ({len(query)}, 3, h, w)")
    return Task(
        name=name,
        support_features=support,
        support_labels=labels,
        query_features=query,
        query_labels=truth,
        class_names=names,
        text_features=text,
        logit_scale=scale,
        ood_features=ood,
        support_norms=support_norms,
        query_norms=query_norms,
        ood_norms=ood_norms,
        backbone=backbone,
        query_images=query_images,
        notes=(*notes, *unsupported, *repeated_names(names)),
        is_partial=partial,
    )


def with_encoder(
    task: Task,
    encoder: Backbone,
    templates: Sequence[str] | None,
    support: Pictures,
    query: Pictures | None = None,
    ood: Pictures | None = None,
) -> Task:
    """`task` with what made its features: the encoder, the prompts and the pictures, row by row."""
    return replace(
        task,
        encoder=encoder,
        templates=tuple(templates or ()),
        support_pictures=support,
        query_pictures=query,
        ood_pictures=ood,
    )


def refuse_partial(task: Task) -> None:
    """Refuse a task that may lack classes or queries where a whole one is needed.

    Raises:
        UserError: it was made with ``partial=True``.
    """
    if task.is_partial:
        raise UserError(
            f"{task.name}: a partial task, good only to update a posterior; load it without partial"
        )


@dataclass(frozen=True, eq=False)
class Pool:
    """The labels (N,) of a whole support set, and which of its rows (n,), rising, a task has encoded."""

    labels: np.ndarray
    rows: np.ndarray


def few_shot(task: Task, shots: int | None, seed: int, pool: Pool | None = None) -> Task:
    """Draw `shots` support rows per class: the task with that support set, rows in class order.

    ``numpy.random.default_rng(seed)``; per class in label order, ``permutation`` of its rows, the first
    `shots`. Hence the draw for K shots is the beginning of the draw for K + 1. A class with fewer rows
    gives all of them and a note. ``shots=None`` keeps the whole support set as it stands, with a note where
    a class has twice the rows of another.

    With a `pool` the draw is from that, and the task needs to hold only the rows that are drawn.

    Raises:
        UserError: `shots` below one.
    """
    if shots is None:
        unequal = unequal_shots(task.support_labels, task.class_names)
        return replace(task, notes=(*task.notes, *unequal)) if unequal else task
    labels = task.support_labels.numpy() if pool is None else pool.labels
    drawn = drawn_rows(labels, task.num_classes, shots, seed)
    counts = [(name, len(rows)) for name, rows in zip(task.class_names, drawn, strict=True)]
    short = [f"'{name}' has {count}" for name, count in counts if 0 < count < shots]
    notes = [f"{listed(short)}: fewer than the {shots} images asked for, so all are used"] if short else []
    keep = np.concatenate(drawn)
    if pool is not None:
        keep = np.searchsorted(pool.rows, keep)
    kept = task.with_support(torch.from_numpy(keep))
    return replace(kept, shots=shots, seed=seed, notes=(*task.notes, *notes))


def drawn_rows(labels: np.ndarray, classes: int, shots: int, seed: int) -> list[np.ndarray]:
    """Which rows of the `labels` (N,) `few_shot` draws, class by class.

    Raises:
        UserError: `shots` below one, or a negative seed.
    """
    if shots < 1:
        raise UserError(f"--shots {shots}: at least one image per class is needed; give 1 or more")
    if seed < 0:
        raise UserError(f"--seed {seed}: seeds are whole numbers from 0 on")
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.flatnonzero(labels == index))[:shots] for index in range(classes)]
