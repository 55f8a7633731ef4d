"""From rows of features and pictures to what a model program takes, and what it may know of its task."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_clip.data.rows import Pictures, Rows
from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.model import AdapterModel, Context, context_of

if TYPE_CHECKING:  # open_clip takes seconds to import; feature programs do without
    from bayes_clip.backbone.encoder import Backbone

NEEDS_PICTURES = ("pooled", "pixels")


def task_context(kind: type[AdapterModel], task: Task) -> Context:
    """What the program `kind` may know of `task`, but for the labelled rows.

    A program that takes pooled features has no projection where the task has no pictures: it then takes the
    features as they left the encoder, and starts from the identity.

    Raises:
        UserError: the program needs the encoder or pictures, and the task has none.
    """
    context = context_of(task.text_features, task.class_names, task.logit_scale, task.num_features)
    context = replace(context, templates=task.templates)
    has_pictures = task.encoder is not None and task.support_pictures is not None
    if kind.uses_encoder and task.encoder is None:
        raise UserError(
            f"{task.name}: {kind.__name__} works inside the encoder, and the task has features alone; give "
            "pictures, or the --backbone that its features are from"
        )
    if kind.takes == "pixels" and not has_pictures:
        raise UserError(
            f"{task.name}: {kind.__name__} takes pictures, and the task has features alone; give a folder of "
            "pictures or a built-in task"
        )
    if kind.uses_encoder or (kind.takes in NEEDS_PICTURES and has_pictures):
        context = replace(context, encoder=task.encoder)
    if kind.takes == "pooled" and has_pictures:
        from bayes_clip.backbone.projection import projection_of

        assert task.encoder is not None
        projection = projection_of(task.encoder)
        context = replace(context, projection=projection, width=len(projection.weight))
    if kind.takes == "pixels":
        assert task.encoder is not None
        context = replace(context, width=3 * math.prod(task.encoder.image_size))
    return context


def inputs_of(kind: type[AdapterModel], context: Context, rows: Rows) -> Tensor:
    """The inputs (N, F) of a program of this kind and context for `rows`, in float32 on the CPU.

    Raises:
        UserError: it takes what needs pictures, and the rows have features alone.
    """
    if kind.takes in NEEDS_PICTURES and context.encoder is not None:
        if rows.pictures is None:
            raise UserError(
                f"{kind.__name__} takes pictures, and these rows are features alone; give the pictures"
            )
        return _through_encoder(kind, context.encoder, rows.pictures)
    if kind.takes == "unit" or rows.norms is None:
        return rows.features
    return rows.features * rows.norms[:, None]


def _through_encoder(kind: type[AdapterModel], encoder: Backbone, pictures: Pictures) -> Tensor:
    pixels = torch.stack([encoder.prepare(picture) for picture in pictures])
    if kind.takes == "pixels":
        return pixels.flatten(1)
    from bayes_clip.backbone.projection import pooled_features

    return pooled_features(encoder, pixels)
