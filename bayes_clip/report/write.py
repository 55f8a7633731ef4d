"""Writing a comparison to a folder: all of it or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayes_clip.errors import UserError
from bayes_clip.evaluation.intervals import interval_rows, resampled
from bayes_clip.evaluation.kept_cells import FOLDER as CELLS
from bayes_clip.evaluation.results import Comparison
from bayes_clip.evaluation.row_tests import paired_rows
from bayes_clip.evaluation.write import write_tables
from bayes_clip.report.arms import settings_of
from bayes_clip.report.figures import draw
from bayes_clip.report.html import render
from bayes_clip.report.picture import save_pictures
from bayes_clip.report.sureness import sureness
from bayes_clip.storage.files import UNFINISHED

OUR_FILES = frozenset(
    {"metrics.csv", "predictions.npz", "config.json", "figures", "report.html"}
    | {"intervals.csv", "paired.csv"}
)
UNTIL_DONE = frozenset({*OUR_FILES, CELLS})  # the cells go when the comparison is written


def write_comparison(comparison: Comparison, directory: Path | str) -> None:
    """Write metrics.csv, intervals.csv, paired.csv, predictions.npz, config.json, figures/ and report.html.

    The folder appears whole at the end, in the place of an earlier comparison if there is one.

    Raises:
        UserError: as `check_writable`.
    """
    if not comparison.runs:
        raise UserError("nothing to report: no engine ran on any task; ask for other --engines")
    every = resampled(comparison.runs)
    intervals, pairs = interval_rows(every), paired_rows(comparison, every)
    with whole_folder(directory) as folder:
        write_tables(comparison, folder, intervals, pairs)
        pictures = draw(comparison)
        drawings = save_pictures(pictures, folder / "figures")
        sure = sureness(settings_of(comparison), intervals, pairs)
        (folder / "report.html").write_text(render(comparison, pictures, drawings, sure), encoding="utf-8")


def check_writable(directory: Path | str, ours: frozenset[str] = UNTIL_DONE, option: str = "--out") -> None:
    """Refuse a folder that files named `ours` cannot be written to; leaves nothing behind. For before work.

    Raises:
        UserError: it is a file, holds something that is not ours, or its parent cannot be written to.
    """
    target = Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise UserError(f"{option} {directory}: is a file; give a folder")
    if target.is_dir():
        names = sorted(item.name for item in target.iterdir())
        strangers = [name for name in names if name not in ours and not name.endswith(UNFINISHED)]
        if strangers:
            raise UserError(
                f"{option} {directory}: holds '{strangers[0]}', not written by this command; "
                "give a new folder"
            )
    parent = next(folder for folder in target.parents if folder.exists())
    probe = _beside(parent / target.name, "probe")
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        raise _unwritable(directory, error, option) from error


@contextmanager
def whole_folder(directory: Path | str, ours: frozenset[str] = UNTIL_DONE) -> Iterator[Path]:
    """A temporary folder beside `directory`, which takes its place when the block ends without an error.

    What is there already is replaced if it holds nothing but files named `ours`.
    """
    check_writable(directory, ours)
    target = Path(directory).resolve()
    partial, previous = _beside(target, "partial"), _beside(target, "previous")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        if target.exists():
            target.rename(previous)
        try:
            partial.rename(target)
        except OSError:
            if previous.exists():
                previous.rename(target)
            raise
    except OSError as error:
        raise _unwritable(directory, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)


def _beside(target: Path, purpose: str) -> Path:
    """A name in the same folder (so that renaming stays on one disk) that no other run uses."""
    return target.with_name(f".{target.name}.{purpose}-{os.getpid()}")


def _unwritable(directory: Path | str, error: OSError, option: str = "--out") -> UserError:
    return UserError(f"{option} {directory}: cannot be written to ({error.strerror}); give another folder")
