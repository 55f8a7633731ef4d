"""Features of any number of pictures written to a file in bounded memory, whole or not at all.

Rows, labels and paths go to files without a name beside the destination, which a killed process leaves no
trace of; the feature file is put together from them. What a killed process had encoded is in the store.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from bayes_clip.data.arrays import check_destination
from bayes_clip.data.encode_stream import Block, encode_stream
from bayes_clip.data.sources import Listing
from bayes_clip.errors import UserError
from bayes_clip.storage.files import written_whole

if TYPE_CHECKING:  # open_clip takes seconds to import
    from bayes_clip.backbone.encoder import Backbone

PIECE = 2**20  # bytes copied at a time
LARGEST_HEADER = 100_000_000  # bytes of a .safetensors header, more of which readers refuse
NAMED_BROKEN = 100  # broken pictures that notes name


@dataclass
class Written:
    """What went into a feature file, and what it took."""

    rows: int = 0
    encoded: int = 0  # how many rows were computed; the others were kept from before
    seconds: float = 0.0
    waited: float = 0.0  # of them, seconds in which the encoder had no pictures
    broken: int = 0
    notes: list[str] = field(default_factory=list)

    def count(self, block: Block) -> None:
        """Add a block."""
        self.rows += len(block.features)
        self.encoded += block.encoded
        self.seconds += block.seconds
        self.waited += block.waited
        self.broken += len(block.broken)
        room = max(NAMED_BROKEN - len(self.notes), 0)
        self.notes += [f"skipped {error}" for error in block.broken[:room]]


def write_features(
    backbone: Backbone,
    listing: Listing,
    path: Path,
    skip_broken: bool = False,
    workers: int | None = None,
) -> Written:
    """Encode the pictures of `listing` and write the feature file `path`, as `save_feature_file` would.

    Rows are as they left the encoder, not normalised. No more than one block of pictures and rows is in
    memory, and on the disk twice the size of the file while it is put together.

    Raises:
        UserError: what `encode_stream` refuses; nothing to be read; features that are zero or not finite;
            paths too long for a ``.safetensors``; or a place that cannot be written.
    """
    check_destination(path)
    written = Written()
    with ExitStack() as opened:
        rows, labels, names = (opened.enter_context(_nameless(path)) for _ in range(3))
        header = longest = 0
        for block in encode_stream(backbone, listing, listing.count, skip_broken, workers=workers):
            _check_rows(block)
            written.count(block)
            rows.write(block.features.numpy().astype("<f4").tobytes())
            if listing.labelled:
                labels.write(np.array([listed.label for listed in block.listed], "<i8").tobytes())
            for listed in block.listed:
                line = json.dumps(listed.source.name).encode() + b"\n"
                header, longest = header + len(line) + 8, max(longest, len(listed.source.name))
                names.write(line)
            if path.suffix.lower() == ".safetensors" and header > LARGEST_HEADER:
                raise UserError(f"{path}: too many paths for a .safetensors file; name it .npz")
        if not written.rows:
            first = written.notes[0].removeprefix("skipped ")
            raise UserError(f"none of {listing.count} pictures can be read; the first: {first}")
        shape = (written.rows, backbone.feature_dim)
        arrays: dict[str, _Array] = {"features": (rows, "<f4", shape)}
        if listing.labelled:
            arrays["labels"] = (labels, "<i8", (written.rows,))
        strings = {
            "class_names": listing.class_names,
            "backbone": backbone.fingerprint,
            "precision": backbone.precision,
        }
        put = _put_npz if path.suffix.lower() == ".npz" else _put_safetensors
        with written_whole(path) as temporary, temporary.open("wb") as stream:
            put(stream, arrays, names, longest, {key: text for key, text in strings.items() if text})
    if written.broken > NAMED_BROKEN:
        written.notes.append(f"skipped {written.broken} pictures in all, of which {NAMED_BROKEN} are named")
    return written


_Array = tuple[IO[bytes], str, tuple[int, ...]]  # a file of raw values, their type and shape
_Arrays = Mapping[str, _Array]
_Strings = Mapping[str, "str | tuple[str, ...]"]


def _put_npz(stream: IO[bytes], arrays: _Arrays, names: IO[bytes], longest: int, strings: _Strings) -> None:
    """An archive as numpy.savez writes it, entry by entry."""
    count = next(iter(arrays.values()))[2][0]
    with zipfile.ZipFile(stream, "w", allowZip64=True) as archive:
        for key, (raw, kind, shape) in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                _put_header(entry, kind, shape)
                raw.seek(0)
                shutil.copyfileobj(raw, entry, PIECE)
        with archive.open("paths.npy", "w", force_zip64=True) as entry:
            kind = f"<U{max(longest, 1)}"
            _put_header(entry, kind, (count,))
            for name in _lines(names):
                entry.write(np.array([name], dtype=kind).tobytes())
        for key, value in strings.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.array(value, dtype=np.str_), allow_pickle=False)


def _put_header(entry: IO[bytes], kind: str, shape: tuple[int, ...]) -> None:
    what = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(entry, what)


def _put_safetensors(
    stream: IO[bytes], arrays: _Arrays, names: IO[bytes], longest: int, strings: _Strings
) -> None:
    """The length of a JSON header, the header, and the arrays: see the format of safetensors."""
    texts = {"paths": tuple(_lines(names)), **strings}
    metadata = {
        key: value if isinstance(value, str) else json.dumps(list(value)) for key, value in texts.items()
    }
    header: dict[str, object] = {"__metadata__": metadata}
    place = 0
    for key, (_, kind, shape) in sorted(arrays.items(), key=lambda item: -np.dtype(item[1][1]).itemsize):
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        header[key] = {
            "dtype": {"<f4": "F32", "<i8": "I64"}[kind],
            "shape": list(shape),
            "data_offsets": [place, place + size],
        }
        place += size
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    stream.write(len(content).to_bytes(8, "little") + content)
    for key in list(header)[1:]:
        raw = arrays[key][0]
        raw.seek(0)
        shutil.copyfileobj(raw, stream, PIECE)


def _lines(names: IO[bytes]) -> Iterator[str]:
    names.seek(0)
    return (json.loads(line) for line in names)


def _check_rows(block: Block) -> None:
    """Refuse features that no direction can be made of, by the name of the first such picture."""
    bad = ~torch.isfinite(block.features).all(dim=1) | (block.features == 0).all(dim=1)
    if bad.any():
        where = block.listed[int(bad.nonzero()[0, 0])].source.where
        raise UserError(f"{where}: its features are zero, NaN or infinite; use another --backbone or weights")


@contextmanager
def _nameless(path: Path) -> Iterator[IO[bytes]]:
    try:
        with tempfile.TemporaryFile(dir=path.parent) as stream:
            yield stream
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror}); choose another place") from None
