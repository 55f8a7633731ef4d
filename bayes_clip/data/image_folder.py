"""Folders of pictures: one folder per class, optionally under ``train/`` and ``test/``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayes_clip.data.images import is_picture
from bayes_clip.data.sources import Source
from bayes_clip.errors import UserError

NAMES_FILE = "classnames.txt"
SPLIT_SEED = 0


@dataclass(frozen=True)
class Pictures:
    """Paths of pictures, or other places that they are read from, and where known the class of each."""

    paths: tuple[Path | Source, ...]
    labels: tuple[int, ...] | None

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class ImageFolder:
    """What a folder of classes holds: names in label order, support and query pictures, and remarks."""

    root: Path
    class_names: tuple[str, ...]
    support: Pictures
    query: Pictures
    notes: tuple[str, ...]
    templates: tuple[str, ...] | None = None  # of its prompts; None: the backbone's own
    mirrors: bool = True  # whether a mirror image is still a picture of the same class


def scan_folder(root: str | Path, partial: bool = False) -> ImageFolder:
    """List the pictures of a folder with one folder per class, or with ``train/`` and ``test/`` of such.

    Labels follow the sorted names of the class folders. Classes are called as their folders are (``_`` read
    as a space) unless ``classnames.txt`` in `root` says otherwise: one name per line in the sorted order of
    the folders, or lines ``folder<TAB>name``. Hidden files and files that are no pictures are left out.
    Without ``test/`` half of each class (rounded down, so that one picture stays) is held out as query by a
    fixed draw, and a note says so. A `partial` folder may have one class only, and nothing of it is query.

    Raises:
        UserError: missing or empty folder, one class only, an empty class, a class in ``test/`` that is not
            in ``train/``, nothing to hold out, or a ``classnames.txt`` that does not fit.
    """
    root = existing_folder(root)
    train, test = _split_folder(root, "train"), _split_folder(root, "test")
    if test is not None and train is None:
        raise UserError(f"{root}: has test/ but no train/ with class folders; add train/")
    notes: list[str] = []
    if train is not None:
        others = [entry.name for entry in _subfolders(root) if entry not in (train, test)]
        notes += [f"folders beside train/ and test/ are left out: {', '.join(others)}"] if others else []
    folders = _class_folders(train or root, notes, 1 if partial else 2)
    class_names = _class_names(root, [folder.name for folder in folders])
    support = _labelled(folders, range(len(folders)), notes)
    if partial:
        query = Pictures((), ())
    elif test is None:
        support, query = hold_out_half(root, support)
        notes.append("no test/ folder: half of each class, by a fixed draw, is held out as query")
    else:
        query = _test_pictures(test, [folder.name for folder in folders], notes)
    return ImageFolder(root, class_names, support, query, tuple(notes))


def existing_folder(path: str | Path) -> Path:
    """`path` as a folder; refused where it is none or cannot be entered."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    if not path.is_dir():
        raise UserError(f"{path}: a file, not a folder with one folder per class; give the folder")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{path}: this folder cannot be read; change its permissions")
    return path


def _split_folder(root: Path, name: str) -> Path | None:
    """``train/`` or ``test/`` where it has class folders in it; one that holds pictures is a class itself."""
    folder = root / name
    return folder if folder.is_dir() and _subfolders(folder) else None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")),
        key=lambda entry: entry.name,
    )


def _class_folders(root: Path, notes: list[str], least: int) -> list[Path]:
    folders = _subfolders(root)
    loose = sum(is_picture(entry) for entry in root.iterdir())
    if not folders and loose:
        raise UserError(
            f"{root}: {loose} pictures but no class folders; put each class in a folder of its own"
        )
    if not folders:
        raise UserError(f"{root}: an empty folder; it needs one folder of pictures per class")
    if len(folders) < least:
        raise UserError(f"{root}: one class only ('{folders[0].name}'); classification needs at least two")
    if loose:
        notes.append(f"pictures right in {root.name}/, which belong to no class and are left out: {loose}")
    return folders


def _labelled(folders: Sequence[Path], labels: Sequence[int], notes: list[str]) -> Pictures:
    """The pictures of `folders`, each with its folder's label; every folder must have some."""
    paths: list[Path] = []
    repeated: list[int] = []
    others = 0
    for folder, label in zip(folders, labels, strict=True):
        entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
        pictures = [entry for entry in entries if is_picture(entry) and entry.is_file()]
        others += len(entries) - len(pictures)
        if not pictures:
            raise UserError(f"{folder}: no pictures in this class folder; add some or remove the folder")
        paths += pictures
        repeated += [label] * len(pictures)
    if others:
        notes.append(f"entries of the class folders that are no pictures and are left out: {others}")
    return Pictures(tuple(paths), tuple(repeated))


def _test_pictures(test: Path, names: list[str], notes: list[str]) -> Pictures:
    folders = _subfolders(test)
    for folder in folders:
        if folder.name not in names:
            raise UserError(f"{folder}: class '{folder.name}' is in test/ but not in train/; add it there")
    absent = sorted(set(names) - {folder.name for folder in folders})
    if absent:
        notes.append(f"classes without test pictures: {len(absent)} ('{absent[0]}' the first)")
    return _labelled(folders, [names.index(folder.name) for folder in folders], notes)


def half_of_each(labels: np.ndarray) -> np.ndarray:
    """Mask (N,) of half of each class, rounded down; the draw depends on nothing but the labels' order."""
    generator = np.random.default_rng(SPLIT_SEED)
    held = np.zeros(len(labels), dtype=bool)
    for label in range(labels.max() + 1):
        rows = generator.permutation(np.flatnonzero(labels == label))
        held[rows[: len(rows) // 2]] = True
    return held


def hold_out_half(
    root: Path, pictures: Pictures, remedy: str = "add pictures or a test/ folder"
) -> tuple[Pictures, Pictures]:
    """Half of each class as query; `remedy` ends the refusal where there is nothing to hold out."""
    labels = np.array(pictures.labels)
    held = half_of_each(labels)
    if not held.any():
        raise UserError(f"{root}: one picture per class leaves none to test on; {remedy}")
    return _chosen(pictures, labels, ~held), _chosen(pictures, labels, held)


def _chosen(pictures: Pictures, labels: np.ndarray, mask: np.ndarray) -> Pictures:
    rows = np.flatnonzero(mask)
    return Pictures(tuple(pictures.paths[row] for row in rows), tuple(labels[rows].tolist()))


def readable_name(folder_name: str) -> str:
    """What the class of a folder is called unless a file says otherwise."""
    return folder_name.replace("_", " ").strip() or folder_name


def _class_names(root: Path, folders: list[str]) -> tuple[str, ...]:
    path = root / NAMES_FILE
    if not path.is_file():
        return tuple(readable_name(name) for name in folders)
    try:
        lines = [line.strip(" \r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from None
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not any("\t" in line for _, line in numbered):
        if len(numbered) != len(folders):
            raise UserError(
                f"{path}: {len(numbered)} names for {len(folders)} class folders; one line for each"
            )
        return tuple(line for _, line in numbered)
    return _names_by_folder(path, numbered, folders)


def _names_by_folder(path: Path, lines: list[tuple[int, str]], folders: list[str]) -> tuple[str, ...]:
    names: dict[str, str] = {}
    for number, line in lines:
        folder, _, name = (part.strip() for part in line.partition("\t"))
        if not name:
            raise UserError(f"{path} line {number}: no name; write folder<TAB>name on every line")
        if folder in names:
            raise UserError(f"{path} line {number}: folder '{folder}' for the second time; name it once")
        if folder not in folders:
            raise UserError(
                f"{path} line {number}: there is no class folder '{folder}'; correct or remove it"
            )
        names[folder] = name
    for folder in folders:
        if folder not in names:
            raise UserError(f"{path}: class folder '{folder}' has no line; add it")
    return tuple(names[folder] for folder in folders)
