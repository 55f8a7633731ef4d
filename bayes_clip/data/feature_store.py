"""Features of one encoder on disk, by what their pictures are made of: each is computed once.

One SQLite file per encoder and precision. A row is known by a 128-bit BLAKE2b digest of the picture's bytes;
a second table spares reading a file again that has the size and time of change that it had. Every batch is
one transaction in a write-ahead log: a process may be killed at any moment, and several may write at once.
The file must lie on a disk of this machine (SQLite's log needs memory that processes share).
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayes_clip.data.images import READING
from bayes_clip.data.sources import Stamp
from bayes_clip.data.store_place import is_default
from bayes_clip.errors import UserError

if TYPE_CHECKING:  # open_clip takes seconds to import
    from bayes_clip.backbone.encoder import Backbone

FORMAT = 1
DIGEST = 16  # bytes
PAGE = 16384  # bytes; several rows of features fit in one
PATIENCE = 60.0  # seconds to wait while another process writes
SUFFIX = ".sqlite"
REMEDY = "remove it and what begins with its name (features are made again), or go without: --no-store"
GO_WITHOUT = "choose another --store DIR, or --no-store"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value)",
    "CREATE TABLE IF NOT EXISTS features (digest BLOB PRIMARY KEY, made INTEGER NOT NULL, row BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS files "
    "(place TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, digest BLOB NOT NULL)",
)


@dataclass(frozen=True)
class Made:
    """A row (D,) of float32 features that is to be kept."""

    digest: bytes
    row: np.ndarray


class FeatureStore:
    """The open store of one encoder; threads may share it. Get one by `opened_store`."""

    def __init__(self, file: Path, dimension: int) -> None:
        self._file, self._dimension = file, dimension
        self._lock = threading.Lock()
        self._connection = connected(file)

    def digest_of(self, stamp: Stamp) -> bytes | None:
        """The digest of the file that had this place, size and time of change; None where it is not known."""
        place, size, changed = stamp
        found = self._ask("SELECT size, changed, digest FROM files WHERE place = ?", (place,))
        return found[2] if found is not None and found[:2] == (size, changed) else None

    def find(self, digest: bytes) -> np.ndarray | None:
        """The features (D,) float32 of the picture with this digest; None where it has none.

        Raises:
            UserError: the store is damaged.
        """
        found = self._ask("SELECT row FROM features WHERE digest = ?", (digest,))
        if found is None:
            return None
        if len(found[0]) != 4 * self._dimension:
            raise UserError(f"{self._file}: damaged feature store (a row is cut short); {REMEDY}")
        return np.frombuffer(found[0], dtype="<f4")

    def add(self, rows: Sequence[Made], files: Sequence[tuple[Stamp, bytes]]) -> None:
        """Keep `rows`, and which digest `files` have, all or nothing; a row that is there already stays.

        Raises:
            UserError: the disk is full, or the store is damaged or held by another process for a minute.
        """
        now = int(time.time())
        contents = [(made.digest, now, made.row.astype("<f4").tobytes()) for made in rows]
        with self._lock, _refused(self._file), _transaction(self._connection):
            self._connection.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?)", contents)
            self._connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(*stamp, digest) for stamp, digest in files],
            )

    def describe(self, **values: Any) -> None:
        """Note whose features these are."""
        with self._lock, _refused(self._file), _transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", list(values.items()))

    def close(self) -> None:
        """Let go of the file; what was added is kept."""
        with self._lock:
            self._connection.close()

    def _ask(self, question: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        with self._lock, _refused(self._file):
            return self._connection.execute(question, values).fetchone()


def digest(content: bytes) -> bytes:
    """What a picture is known by, from its bytes: 16 bytes of BLAKE2b."""
    return hashlib.blake2b(content, digest_size=DIGEST).digest()


@contextmanager
def opened_store(folder: Path | None, backbone: Backbone) -> Iterator[FeatureStore | None]:
    """The store of an encoder in `folder`, made where there is none; None for no folder.

    The file's name holds all that features depend on but the picture: the fingerprint of weights and
    preprocessing, the precision, the kind of device and how this package reads pictures.

    Where nobody named the folder and it cannot be used, a warning says so and nothing is kept.

    Raises:
        UserError: the folder cannot be written, or the file is damaged.
    """
    store = None if folder is None else _opened(folder, backbone)
    try:
        yield store
    finally:
        if store is not None:
            store.close()


def _opened(folder: Path, backbone: Backbone) -> FeatureStore | None:
    import torch

    kind = torch.device(backbone.device).type
    name = f"{backbone.fingerprint}-{backbone.precision}-{kind}-{READING}{SUFFIX}"
    weights = f" {backbone.pretrained}" if backbone.pretrained else ""
    try:
        store = FeatureStore(_made(folder) / name, backbone.feature_dim)
        store.describe(
            format=FORMAT,
            backbone=f"{backbone.name}{weights}",
            fingerprint=backbone.fingerprint,
            precision=backbone.precision,
            dimension=backbone.feature_dim,
        )
    except UserError as error:
        if not is_default():
            raise
        warnings.warn(f"features are not kept: {error}", stacklevel=4)
        return None
    return store


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot keep features there ({error.strerror}); {GO_WITHOUT}") from None
    return folder


def connected(file: Path) -> sqlite3.Connection:
    """A connection to a store, whose tables are made where they are missing.

    Raises:
        UserError: the file cannot be written, is no store, or is of another format.
    """
    with _refused(file):
        connection = sqlite3.connect(file, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _write_ahead(connection)
            connection.execute("PRAGMA synchronous = NORMAL")  # a lost transaction costs one batch
            with _transaction(connection):
                for table in _TABLES:
                    connection.execute(table)
            found = connection.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
        except BaseException:
            connection.close()
            raise
    if found is not None and found[0] != FORMAT:
        connection.close()
        raise UserError(f"{file}: a feature store of format {found[0]}, and this reads {FORMAT}; {REMEDY}")
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log; SQLite does not wait for another process that does so: ask again."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.05)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _refused(file: Path) -> Iterator[None]:
    """Errors of SQLite as one line: a place that cannot be written, or a file that is damaged."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(f"{file}: cannot keep features there ({error}); {GO_WITHOUT}") from None
    except sqlite3.DatabaseError as error:
        raise UserError(f"{file}: damaged feature store ({error}); {REMEDY}") from None
