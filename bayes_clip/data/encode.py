"""From pictures to features: encoded once, kept, and broken ones named or skipped."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_clip.data.encode_stream import encode_stream
from bayes_clip.data.rows import Pictures
from bayes_clip.data.sources import Listed, Source, as_source, read_picture
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
    paths: Sequence[Path | Source],
    *,
    skip_broken: bool = False,
    with_thumbnails: bool = False,
    description: str = "encoding pictures",
) -> Encoded:
    """Encode pictures, in order: files by their paths, or any `Source`. Those kept on disk are not computed.

    To share the work out among processes, give each a stretch of `paths` and put the results together: the
    features of a picture do not depend on the others. With one store (`store_folder`) for all of them it is
    enough that each calls this; who asks last finds every row there.

    Raises:
        UserError: a picture that cannot be read, unless `skip_broken`; or none that can.
    """
    listing = (Listed(as_source(path)) for path in paths)
    blocks = list(encode_stream(backbone, listing, len(paths), skip_broken, with_thumbnails, description))
    broken = [error for block in blocks for error in block.broken]
    kept = tuple(place for block in blocks for place in block.places)
    if broken and not kept:
        raise UserError(f"none of {len(paths)} pictures can be read; the first: {broken[0]}")
    small = [little for block in blocks for little in block.thumbnails]
    return Encoded(
        features=torch.cat([block.features for block in blocks] or [torch.empty(0, backbone.feature_dim)]),
        kept=kept,
        thumbnails=torch.stack(small) if small else None,
        notes=tuple(f"skipped {error}" for error in broken),
    )


def picture_files(paths: Sequence[Path | Source], kept: Sequence[int]) -> Pictures:
    """The pictures that could be read, to be read again by programs that take more than features."""
    return Pictures(
        lambda number: read_picture(paths[number]),
        tuple(kept),
        called=lambda number: as_source(paths[number]).name,
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
