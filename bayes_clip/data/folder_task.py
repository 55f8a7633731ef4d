"""From listed pictures to a task: encode them, and the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from bayes_clip.data.encode import Encoded, encode_class_names, encode_files, picture_files
from bayes_clip.data.image_folder import ImageFolder
from bayes_clip.data.task import Task, make_task, with_encoder
from bayes_clip.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from bayes_clip.backbone.encoder import Backbone
    from bayes_clip.data.sources import Source

LARGER_BACKBONE = "--backbone ViT-B-32 --pretrained laion2b_s34b_b79k"


class Encode(Protocol):
    """What makes features of picture files: `encode_files`, or the same with a memory."""

    def __call__(
        self,
        backbone: Backbone,
        paths: Sequence[Path | Source],
        *,
        skip_broken: bool = ...,
        with_thumbnails: bool = ...,
        description: str = ...,
    ) -> Encoded: ...


def folder_task(
    folder: ImageFolder,
    backbone: Backbone,
    templates: Sequence[str] | None = None,
    skip_broken: bool = False,
    allow_unknown_classes: bool = False,
    partial: bool = False,
    encode: Encode = encode_files,
    name: str | None = None,
) -> Task:
    """The task of a folder's pictures, called as the folder unless by `name`; a `partial` one has no queries.

    `templates` are those of the folder unless given, and the backbone's own if it has none.

    Raises:
        UserError: words of the class names that the backbone never saw, or what `encode` refuses.
    """
    unknown = backbone.unknown_words(folder.class_names)
    if unknown and not allow_unknown_classes:
        raise UserError(
            f"{folder.root}: {backbone.name} never saw the words {', '.join(unknown[:5])} of the class "
            f"names; use a larger backbone ({LARGER_BACKBONE}), or insist with --allow-unknown-classes"
        )
    templates = templates or folder.templates
    text, notes = encode_class_names(backbone, folder.class_names, templates)
    support = encode(
        backbone, folder.support.paths, skip_broken=skip_broken, description="encoding support pictures"
    )
    known: dict[str, Any] = {
        "class_names": folder.class_names,
        "text_features": text,
        "logit_scale": backbone.logit_scale,
        "backbone": backbone.fingerprint,
        "source": str(folder.root),
    }
    name = name or folder.root.resolve().name
    labels = np.array(folder.support.labels)[list(support.kept)]
    notes = (*folder.notes, *notes, *support.notes)
    shown = replace(picture_files(folder.support.paths, support.kept), mirrors=folder.mirrors)
    if partial:
        task = make_task(name, support.features, labels, notes=notes, partial=True, **known)
        return with_encoder(task, backbone, templates, shown)
    query = encode(
        backbone,
        folder.query.paths,
        skip_broken=skip_broken,
        with_thumbnails=True,
        description="encoding query pictures",
    )
    truth = np.array(folder.query.labels)[list(query.kept)]
    known |= {"query_images": query.thumbnails, "notes": (*notes, *query.notes)}
    task = make_task(name, support.features, labels, query.features, truth, **known)
    asked = replace(picture_files(folder.query.paths, query.kept), mirrors=folder.mirrors)
    return with_encoder(task, backbone, templates, shown, asked)
