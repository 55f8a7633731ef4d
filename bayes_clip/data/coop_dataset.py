"""Data set folders as CoOp arranges them: a split file in JSON, or the lists of FGVC-Aircraft, or ImageNet.

``split_zhou_<name>.json`` holds ``{"train": [[path, label, class name], ...], "val": ..., "test": ...}``.
Train is the support pool and test the query set; val is never used, because a validation set contradicts
few labels and ImageNet's is its test set.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bayes_clip.data.coop_layouts import AIRCRAFT, IMAGENET, LAYOUTS, SPLIT_FILES, Layout
from bayes_clip.data.image_folder import ImageFolder, Pictures, existing_folder
from bayes_clip.data.imagenet import is_imagenet, scan_imagenet
from bayes_clip.errors import UserError

VARIANTS = "variants.txt"


@dataclass(frozen=True)
class Entry:
    """One picture of a split: where it stands there, its path under the pictures' folder, its class."""

    place: str  # "train entry 3"
    path: str
    label: int
    class_name: str


def is_coop_dataset(path: str | Path) -> bool:
    """Whether the folder `path` is arranged as one of CoOp's data sets."""
    path = Path(path)
    if not path.is_dir():
        return False
    return any(path.glob(SPLIT_FILES)) or (path / VARIANTS).is_file() or is_imagenet(path)


def scan_coop_dataset(root: str | Path) -> ImageFolder:
    """List the pictures of a CoOp-style data set folder: classes in the order of the split's labels.

    A split file that is not one of CoOp's own is read too: its pictures lie in ``images/`` where there is
    such a folder, else its paths begin in `root`; its prompts are the backbone's own. ``_`` in class names
    is read as a space.

    Raises:
        UserError: no split or several, a split that cannot be read, a picture that is missing, a label out of
            range, a class name that changes, or a class without a train picture.
    """
    root = existing_folder(root)
    if is_imagenet(root):
        return scan_imagenet(root, IMAGENET)
    if (root / VARIANTS).is_file() and not any(root.glob(SPLIT_FILES)):
        names, train, test = _aircraft(root)
        return _listed(root, root / VARIANTS, root / AIRCRAFT.images, names, train, test, AIRCRAFT)
    file = _split_file(root)
    layout = next((known for known in LAYOUTS if known.split and known.split_file == file.name), None)
    images = root / ("images" if layout is None else layout.images)
    if layout is None and not images.is_dir():
        images = root
    split = _read_split(file)
    train, test = (_entries(split, part, file) for part in ("train", "test"))
    return _listed(root, file, images, _names(file, train, test), train, test, layout)


def _split_file(root: Path) -> Path:
    found = sorted(root.glob(SPLIT_FILES))
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{root}: {len(found)} split files ({found[0].name}, {found[1].name}, ...); keep one")
    raise UserError(f"{root}: no split file ({SPLIT_FILES}); put CoOp's for this data set there")


def _read_split(file: Path) -> dict[str, Any]:
    try:
        split = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); fetch it again") from None
    if not isinstance(split, dict) or not {"train", "test"} <= split.keys():
        raise UserError(f'{file}: needs "train" and "test", each a list of [path, label, class name]')
    return split


def _entries(split: dict[str, Any], part: str, file: Path) -> list[Entry]:
    rows = split[part]
    if not isinstance(rows, list) or not rows:
        raise UserError(f'{file}: "{part}" is no list of pictures; each is [path, label, class name]')
    return [_entry(row, f"{part} entry {number}", file) for number, row in enumerate(rows)]


def _entry(row: Any, place: str, file: Path) -> Entry:
    if not (isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and isinstance(row[2], str)):
        raise UserError(f"{file}: {place} ({row!r}) is not [path, label, class name]; fetch the file again")
    path, label, name = row
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise UserError(f"{file}: {place} has label {label!r}; labels are whole numbers from 0 on")
    return Entry(place, path, label, name)


def _names(file: Path, train: Sequence[Entry], test: Sequence[Entry]) -> tuple[str, ...]:
    """The class names by label; each label has one name, and a picture to learn from."""
    first: dict[int, Entry] = {}
    for entry in (*train, *test):
        known = first.setdefault(entry.label, entry)
        if known.class_name != entry.class_name:
            raise UserError(
                f"{file}: label {entry.label} is '{known.class_name}' in {known.place} and "
                f"'{entry.class_name}' in {entry.place}; a label has one class name"
            )
    trained = {entry.label for entry in train}
    for entry in test:
        if entry.label not in trained:
            raise UserError(
                f"{file}: {entry.place} has label {entry.label}, out of range: no train picture has it; "
                "correct the label or add train pictures"
            )
    missing = next((label for label in range(max(trained)) if label not in trained), None)
    if missing is not None:
        raise UserError(
            f"{file}: labels run to {max(trained)}, and no train picture has label {missing}; number the "
            "classes from 0 on without gaps"
        )
    return tuple(first[label].class_name for label in sorted(trained))


def _aircraft(root: Path) -> tuple[tuple[str, ...], list[Entry], list[Entry]]:
    """FGVC-Aircraft has lists of its own: ``<number> <variant>`` a line, classes in ``variants.txt``."""
    names = tuple(line for _, line in _lines(root / VARIANTS))
    labels = {name: label for label, name in enumerate(names)}

    def entries(part: str) -> list[Entry]:
        found = []
        file = root / f"images_variant_{part}.txt"
        for number, line in _lines(file):
            picture, _, name = line.partition(" ")
            if name not in labels:
                raise UserError(f"{file} line {number}: variant '{name}' is not in {VARIANTS}; correct one")
            found.append(Entry(f"{file.name} line {number}", f"{picture}.jpg", labels[name], name))
        return found

    return names, entries("train"), entries("test")


def _lines(file: Path) -> list[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); fetch the data set again") from None
    found = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not found:
        raise UserError(f"{file}: is empty; fetch the data set again")
    return found


def _listed(
    root: Path,
    file: Path,
    images: Path,
    names: tuple[str, ...],
    train: Iterable[Entry],
    test: Iterable[Entry],
    layout: Layout | None,
) -> ImageFolder:
    return ImageFolder(
        root,
        tuple(name.replace("_", " ").strip() for name in names),
        _pictures(file, images, train),
        _pictures(file, images, test),
        (),
        None if layout is None else (layout.template,),
    )


def _pictures(file: Path, images: Path, entries: Iterable[Entry]) -> Pictures:
    entries = list(entries)
    paths = tuple(images / entry.path for entry in entries)
    missing = [place for place, path in enumerate(paths) if not path.is_file()]
    if missing:
        first = missing[0]
        raise UserError(
            f"{paths[first]}: no such picture ({entries[first].place} of {file.name}; {len(missing)} of "
            f"{len(paths)} are missing); put the pictures into {images}"
        )
    return Pictures(paths, tuple(entry.label for entry in entries))
