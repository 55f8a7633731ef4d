"""Torchvision's data sets as listings, where they are on disk: ``torchvision:NAME[:ROOT]``.

Their train part (train and val where torchvision joins them) is the support pool and their test part the
query set; of those with one part alone, half of each class is held out by a fixed draw.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bayes_clip.data.image_folder import ImageFolder, Pictures, hold_out_half
from bayes_clip.data.sources import Stamp
from bayes_clip.data.torchvision_table import KNOWN, Known
from bayes_clip.errors import UserError, nearest

PREFIX = "torchvision:"
DEFAULT_ROOT = "data"  # as in torchvision's own examples
LABELS = ("targets", "_labels", "labels", "y")  # attributes that hold the labels of all rows
SAMPLES = "_samples"  # or pairs of a path and a label
_TROUBLE = (RuntimeError, OSError, ValueError, LookupError, EOFError, SyntaxError)

Arguments = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Named:
    """What ``torchvision:NAME[:ROOT]`` asks for."""

    text: str
    name: str
    root: Path

    @property
    def known(self) -> Known:
        """The data set."""
        return KNOWN[self.name]


@dataclass(frozen=True, slots=True)
class TorchvisionRow:
    """The picture in a row of one part of a data set, as a `Source`."""

    text: str  # what was asked for
    kind: str
    root: Path
    part: str
    arguments: Arguments
    row: int

    @property
    def name(self) -> str:
        return f"{self.text} {self.part} row {self.row}"

    @property
    def where(self) -> str:
        return self.name

    def stamp(self) -> Stamp | None:
        return None  # many pictures share a file

    def read(self) -> bytes:
        """The picture as PNG, without loss."""
        file = io.BytesIO()
        try:
            picture = _opened(self.kind, self.root, self.arguments)[self.row][0]
            picture.convert("RGB").save(file, "PNG", compress_level=1)
        except _TROUBLE as error:
            raise UserError(f"{self.where}: cannot be read ({error}); fetch the data set again") from None
        return file.getvalue()


def is_torchvision(text: str) -> bool:
    """Whether `text` names a data set of torchvision."""
    return text.startswith(PREFIX)


def named(text: str) -> Named:
    """Read ``torchvision:NAME[:ROOT]``; without a root it is ``data``.

    Raises:
        UserError: a name that is none of `KNOWN`.
    """
    name, _, root = text.removeprefix(PREFIX).partition(":")
    key = name.strip().lower().replace("-", "_")
    if key not in KNOWN:
        raise UserError(
            f"{text}: no data set of torchvision by that name here.{nearest(key, KNOWN)} "
            f"Known: {', '.join(KNOWN)}"
        )
    return Named(text, key, Path(root or DEFAULT_ROOT).expanduser())


def scan_torchvision(asked: Named, partial: bool = False) -> ImageFolder:
    """List the pictures of a data set that lies on disk; nothing is downloaded. `partial`: no query rows.

    Raises:
        UserError: it is not there or cannot be read, and where it belongs.
    """
    known = asked.known
    support, names = _listed(asked, "train", known.train)
    notes: tuple[str, ...] = ()
    root = Path(asked.text)
    if partial:
        query = Pictures((), ())
    elif known.test is not None:
        query, _ = _listed(asked, "test", known.test)
    else:
        support, query = hold_out_half(root, support, "fetch the whole data set")
        notes = ("no test part: half of each class, by a fixed draw, is held out as query",)
    prompts = None if known.template is None else (known.template,)
    return ImageFolder(root, names, support, query, notes, prompts, known.mirrors)


def _listed(asked: Named, part: str, arguments: Mapping[str, Any]) -> tuple[Pictures, tuple[str, ...]]:
    """The rows of one part with their labels, and the class names."""
    known, given = asked.known, tuple(arguments.items())
    place = asked.root / known.folder
    remedy = (
        f"it belongs in {place}, unpacked (from {known.page}; nothing is downloaded), or name the root that "
        f"holds it: {PREFIX}{asked.name}:ROOT"
    )
    if not place.exists():
        raise UserError(f"{asked.text}: not there; {remedy}")
    try:
        dataset = _opened(known.kind, asked.root, given)
        labels = _labels(dataset)
        names = getattr(dataset, known.names) if isinstance(known.names, str) else known.names
    except _TROUBLE as error:
        reason = (str(error).splitlines() or [""])[0].split(" You can use")[0].rstrip(".")
        what = f"torchvision cannot read it ({reason or type(error).__name__})"
        raise UserError(f"{asked.text}: {what}; {remedy}") from None
    rows = range(len(labels))
    sources = tuple(TorchvisionRow(asked.text, known.kind, asked.root, part, given, row) for row in rows)
    return Pictures(sources, labels), tuple(known.word(name) for name in names)


@lru_cache(maxsize=4)
def _opened(kind: str, root: Path, arguments: Arguments) -> Any:
    """One part of a data set, as torchvision opens it, without a download."""
    from torchvision import datasets

    return getattr(datasets, kind)(str(root), **dict(arguments))


def _labels(dataset: Any) -> tuple[int, ...]:
    """The labels of all rows, without decoding a picture where the data set keeps them apart."""
    for attribute in LABELS:
        if hasattr(dataset, attribute):
            return tuple(int(label) for label in getattr(dataset, attribute))
    if hasattr(dataset, SAMPLES):
        return tuple(int(label) for _, label in getattr(dataset, SAMPLES))
    return tuple(int(dataset[row][1]) for row in range(len(dataset)))
