"""Where the bytes of one picture are: a file of its own, a member of a tar archive, a row of a data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from bayes_clip.data.images import decode_image, read_bytes
from bayes_clip.errors import UserError

Stamp = tuple[str, int, int]  # place, bytes, time of the last change: the same stamp, the same picture


class Source(Protocol):
    """One picture, by where it is; a small value that can be sent to another process."""

    @property
    def name(self) -> str:
        """What tables and feature files call it."""

    @property
    def where(self) -> str:
        """What a refusal calls it."""

    def stamp(self) -> Stamp | None:
        """What changes when its bytes do, without reading them; None where nothing does."""

    def read(self) -> bytes:
        """Its bytes. Raises UserError where it is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def where(self) -> str:
        return str(self.path)

    def stamp(self) -> Stamp | None:
        return _stamp(str(self.path.absolute()), self.path)

    def read(self) -> bytes:
        return read_bytes(self.path)


@dataclass(frozen=True, slots=True)
class TarMember:
    """A picture in an uncompressed tar archive, read from its place there without the members before it."""

    archive: Path
    name: str
    offset: int  # of its first byte
    size: int

    @property
    def where(self) -> str:
        return f"{self.archive}: member {self.name}"

    def stamp(self) -> Stamp | None:
        return _stamp(f"{self.archive.absolute()}:{self.offset}:{self.size}", self.archive)

    def read(self) -> bytes:
        try:
            with self.archive.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read(self.size)
        except OSError as error:
            raise UserError(f"{self.where}: cannot be read ({error.strerror}); check the archive") from None
        if len(content) < self.size:
            raise UserError(f"{self.where}: the archive ends before it; it was truncated: copy it again")
        return content


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A picture in a row of a Hugging Face data set on disk."""

    folder: Path
    column: str
    row: int
    name: str

    @property
    def where(self) -> str:
        return f"{self.folder}: row {self.row}, column {self.column}"

    def stamp(self) -> Stamp | None:
        return None  # its bytes are in memory as soon as they are asked for

    def read(self) -> bytes:
        value = opened_column(self.folder, self.column)[self.row][self.column]
        if value is None:
            raise UserError(f"{self.where}: no picture in this row; remove it")
        return read_bytes(value["path"]) if value["bytes"] is None else value["bytes"]


@dataclass(frozen=True)
class Listed:
    """A picture in a listing, and the index of its class where that is known."""

    source: Source
    label: int | None = None


@dataclass(frozen=True)
class Listing:
    """Pictures in order, found anew each time they are gone through, so that a million take no memory.

    To share the work out, take stretches: ``itertools.islice(listing, first, last)``, or indices of
    ``list(listing)`` where that many fit into memory.
    """

    root: Path  # what was asked for
    walk: Callable[[], Iterator[Listed]]
    count: int
    class_names: tuple[str, ...] | None = None
    labelled: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Listed]:
        """The pictures, as many as there were when they were counted.

        Raises:
            UserError: there are more or fewer by now, or what going through them refuses.
        """
        seen = 0
        for listed in self.walk():
            seen += 1
            if seen > self.count:
                break
            yield listed
        if seen != self.count:
            raise UserError(f"{self.root}: pictures came or went while they were read; run it again")


def as_source(place: Path | Source) -> Source:
    """A path as the source that it is."""
    return PictureFile(place) if isinstance(place, Path) else place


def read_picture(place: Path | Source) -> Image.Image:
    """The picture of a source as RGB; refusals as those of `decode_image`."""
    source = as_source(place)
    return decode_image(source.read(), source.where)


@lru_cache(maxsize=8)
def opened_column(folder: Path, column: str) -> Any:
    """The pictures of a data set on disk as they are kept, undecoded: {"bytes", "path"} by row."""
    from datasets import Image as ImageColumn

    from bayes_clip.data.datasets_folder import opened

    return opened(folder).select_columns([column]).cast_column(column, ImageColumn(decode=False))


def _stamp(place: str, file: Path) -> Stamp | None:
    try:
        state = os.stat(file)
    except OSError:
        return None  # reading it says why
    return place, state.st_size, state.st_mtime_ns
