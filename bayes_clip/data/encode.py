"""From picture files to features: read by threads, encoded in batches, broken ones named or skipped."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_clip.data.images import load_image, thumbnail
from bayes_clip.data.rows import Pictures
from bayes_clip.errors import UserError

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone


@dataclass(frozen=True)
class Encoded:
    """Features of the pictures that could be read."""

    features: Tensor  # (N, D) float32, not normalised
    kept: tuple[int, ...]  # which of the paths the rows belong to
    thumbnails: Tensor | None  # (N, 3, 64, 64) uint8 where asked for
    notes: tuple[str, ...]  # names the pictures that were skipped


def encode_files(
    backbone: Backbone,
    paths: Sequence[Path],
    *,
    skip_broken: bool = False,
    with_thumbnails: bool = False,
    description: str = "encoding pictures",
) -> Encoded:
    """Encode picture files in order.

    Raises:
        UserError: a picture that cannot be read, unless `skip_broken`; or none that can.
    """
    from bayes_clip.backbone.prefetch import ahead, workers_for

    kept: list[int] = []
    small: list[Tensor] = []
    broken: list[UserError] = []

    def read(path: Path) -> tuple[Tensor, Tensor | None] | UserError:
        try:
            image = load_image(path)
        except UserError as error:
            return error
        return backbone.prepare(image), thumbnail(image) if with_thumbnails else None

    def readable(pictures: Iterable[tuple[Tensor, Tensor | None] | UserError]) -> Iterator[Tensor]:
        for index, picture in enumerate(pictures):
            if isinstance(picture, UserError):
                if not skip_broken:
                    raise picture
                broken.append(picture)
                continue
            pixels, little = picture
            kept.append(index)
            if little is not None:
                small.append(little)
            yield pixels

    with ahead(read, paths, workers_for(backbone.device)) as pictures:
        features = backbone.encode_pixels(readable(pictures), description=description, total=len(paths))
    if broken and not kept:
        raise UserError(f"none of {len(paths)} pictures can be read; the first: {broken[0]}")
    return Encoded(
        features=features,
        kept=tuple(kept),
        thumbnails=torch.stack(small) if small else None,
        notes=tuple(f"skipped {error}" for error in broken),
    )


def picture_files(paths: Sequence[Path], kept: Sequence[int]) -> Pictures:
    """The picture files that could be read, to be read again by programs that take more than features."""
    return Pictures(
        lambda number: load_image(paths[number]), tuple(kept), called=lambda number: str(paths[number])
    )


def encode_class_names(
    backbone: Backbone, class_names: Sequence[str], templates: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Unit text features (C, D) of classes, and a note on words that the backbone never saw."""
    with warnings.catch_warnings():  # the note says the same
        warnings.simplefilter("ignore")
        text = backbone.text_features(class_names, templates)
    unknown = backbone.unknown_words([*class_names, *(templates or ())])
    if not unknown:
        return text, ()
    listed = ", ".join(f"'{word}'" for word in unknown[:5])
    return text, (f"{backbone.name} never saw {listed} in training: its text features of them mean little",)
