"""What features are kept, encoder by encoder, and how to keep fewer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bayes_clip.data.feature_store import SUFFIX, connected
from bayes_clip.errors import UserError

SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Kept:
    """What is kept of one encoder."""

    file: Path
    backbone: str
    fingerprint: str
    precision: str
    dimension: int
    rows: int
    size: int  # bytes on disk
    first: float | None  # when the oldest and the newest row were made, in seconds since 1970
    last: float | None


def list_kept(folder: Path) -> list[Kept]:
    """What is kept in `folder`, encoder by encoder.

    Raises:
        UserError: a damaged store.
    """
    return [_kept(file) for file in sorted(folder.glob(f"*{SUFFIX}"))] if folder.is_dir() else []


def prune(
    folder: Path,
    older_than_days: float | None = None,
    encoder: str | None = None,
    largest: int | None = None,
) -> int:
    """Forget rows: all of an `encoder` (of any unless given) or those older than so many days, or its oldest.

    With `largest`, only the oldest go, until about so many bytes are left of what could go. Returns how many
    rows are gone. Others may read and write meanwhile.

    Raises:
        UserError: no such encoder; nothing to go by; or a damaged store.
    """
    if older_than_days is None and encoder is None and largest is None:
        raise UserError("--prune: say what goes: --older-than DAYS, --encoder FINGERPRINT or --max-size SIZE")
    kept = list_kept(folder)
    chosen = [one for one in kept if encoder is None or one.fingerprint.startswith(encoder)]
    if not chosen and encoder is not None:
        known = ", ".join(sorted({one.fingerprint for one in kept})) or "none"
        raise UserError(f"--encoder {encoder}: no features of it are kept; there are: {known}")
    gone = 0
    if older_than_days is not None or largest is None:
        age = -1.0 if older_than_days is None else older_than_days * SECONDS_A_DAY  # -1: those of now as well
        gone = sum(_forget(one.file, time.time() - age) for one in chosen)
    if largest is not None:
        gone += _forget_oldest([_kept(one.file) for one in chosen], largest)
    return gone


def _kept(file: Path) -> Kept:
    with closing(connected(file)) as connection:
        about = dict(connection.execute("SELECT name, value FROM about").fetchall())
        rows, first, last = connection.execute(
            "SELECT COUNT(*), MIN(made), MAX(made) FROM features"
        ).fetchone()
    beside = [file.with_name(file.name + end) for end in ("", "-wal", "-shm")]
    size = sum(part.stat().st_size for part in beside if part.exists())
    backbone, fingerprint, precision = (
        str(about.get(name, "?")) for name in ("backbone", "fingerprint", "precision")
    )
    dimension = int(about.get("dimension", 0))
    return Kept(file, backbone, fingerprint, precision, dimension, rows, size, first, last)


def _forget(file: Path, before: float) -> int:
    """Forget the rows of a store that were made before a time, and give their place on the disk back."""
    with closing(connected(file)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        gone = connection.execute("DELETE FROM features WHERE made < ?", (before,)).rowcount
        connection.execute("DELETE FROM files WHERE digest NOT IN (SELECT digest FROM features)")
        connection.execute("COMMIT")
        connection.executescript("PRAGMA incremental_vacuum")  # execute would free one page and stop
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return gone


def _forget_oldest(kept: Sequence[Kept], largest: int) -> int:
    """Forget the oldest rows of all stores until about `largest` bytes are left."""
    surplus = sum(one.size for one in kept) - largest
    ages = []
    for one in kept:
        with closing(connected(one.file)) as connection:
            made = connection.execute("SELECT made, COUNT(*) FROM features GROUP BY made").fetchall()
        ages += [(when, count * one.size / max(one.rows, 1)) for when, count in made]
    before = 0.0
    for when, size in sorted(ages):
        if surplus <= 0:
            break
        before, surplus = when + 1.0, surplus - size
    return sum(_forget(one.file, before) for one in kept)
