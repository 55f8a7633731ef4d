"""ImageNet and its variants as CoOp lays them out: folders of classes called by WordNet ids.

``classnames.txt`` holds ``<WordNet id> <class name>`` a line. Labels follow the sorted ids. The variants are
tests alone: V2 (matched frequency; its folders are the labels), Sketch, and A and R with 200 classes each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_clip.data.coop_layouts import IMAGENET, SHIFTS, Layout
from bayes_clip.data.image_folder import ImageFolder, Pictures, existing_folder
from bayes_clip.data.images import is_picture
from bayes_clip.errors import UserError

NAMES = "classnames.txt"


@dataclass(frozen=True)
class Shifted:
    """A test set of another distribution: its pictures with their ImageNet labels, and which classes it has.

    `classes` are ImageNet labels in rising order: all of them, or the 200 of A and R. Only these compete.
    """

    name: str
    pictures: Pictures
    classes: tuple[int, ...]


def is_imagenet(root: Path) -> bool:
    """Whether `root` holds ``classnames.txt`` beside ``images/train/`` and ``images/val/``."""
    return all((root / "images" / part).is_dir() for part in ("train", "val")) and (root / NAMES).is_file()


def scan_imagenet(root: Path, layout: Layout) -> ImageFolder:
    """ImageNet: train is the support pool, and the official validation set the query set, as everywhere.

    Raises:
        UserError: a class without a name or without pictures, or other classes in val than in train.
    """
    names = _class_names(root / NAMES)
    train, val = (root / layout.images / part for part in ("train", "val"))
    ids = _folders(train)
    if _folders(val) != ids:
        other = sorted({*ids} ^ {*_folders(val)})[0]
        raise UserError(f"{root}: class folder '{other}' is not in both {train.name}/ and {val.name}/")
    named = _named(ids, names, root / NAMES)
    places = {name: label for label, name in enumerate(ids)}
    return ImageFolder(root, named, _pictures(train, places), _pictures(val, places), (), (layout.template,))


def imagenet_ids(root: Path, layout: Layout) -> tuple[str, ...]:
    """The WordNet ids of ImageNet's classes, by label."""
    return tuple(_folders(root / layout.images / "train"))


def scan_shift(root: str | Path, layout: Layout, ids: Sequence[str]) -> Shifted:
    """List a variant of the ImageNet whose classes are `ids` (by label).

    Raises:
        UserError: no folder, a class that ImageNet lacks, or an empty class.
    """
    images = existing_folder(Path(root) / layout.images)
    places = {name: label for label, name in enumerate(ids)}
    found = _folders(images)
    if all(name.isdecimal() for name in found):
        places = {str(label): label for label in range(len(ids))}
    unknown = next((name for name in found if name not in places), None)
    if unknown is not None:
        raise UserError(f"{images / unknown}: no class of the ImageNet beside it; remove the folder")
    pictures = _pictures(images, {name: places[name] for name in found})
    return Shifted(layout.title, pictures, tuple(sorted(places[name] for name in found)))


def variant_of(root: str | Path) -> Layout | None:
    """Which variant of ImageNet the folder `root` holds, by its own name and that of its pictures' folder."""
    root = Path(root)
    if is_imagenet(root):
        return None
    for layout in SHIFTS:
        own = root.resolve().name == layout.folder or layout.images != IMAGENET.images
        if own and (root / layout.images).is_dir():
            return layout
    return None


def scan_variant(root: str | Path, layout: Layout) -> ImageFolder:
    """A variant as a task: what ImageNet's train pictures of its classes teach is asked of its own pictures.

    Its classes alone, all or the 200 of A and R, in ImageNet's order. ImageNet lies beside it, in
    ``../imagenet``.

    Raises:
        UserError: there is no ImageNet beside it, or what `scan_imagenet` or `scan_shift` refuses.
    """
    root = Path(root)
    beside = root.resolve().parent / IMAGENET.folder
    if not is_imagenet(beside):
        raise UserError(
            f"{root}: {layout.title} is a test set of {IMAGENET.title}, whose train pictures it takes and "
            f"which is not beside it; put {NAMES}, images/train and images/val into {beside} "
            f"({IMAGENET.page})"
        )
    imagenet = scan_imagenet(beside, IMAGENET)
    shifted = scan_shift(root, layout, imagenet_ids(beside, IMAGENET))
    places = {label: place for place, label in enumerate(shifted.classes)}
    names = tuple(imagenet.class_names[label] for label in shifted.classes)
    support, query = (_among(side, places) for side in (imagenet.support, shifted.pictures))
    note = (
        f"{layout.title}: {len(names)} classes; the support pool is {IMAGENET.title}'s train pictures of them"
    )
    return ImageFolder(root, names, support, query, (note,), (layout.template,))


def _among(pictures: Pictures, places: Mapping[int, int]) -> Pictures:
    """The pictures whose label is a key of `places`, with what it stands for as their label."""
    chosen = [
        (path, places[label])
        for path, label in zip(pictures.paths, pictures.labels or (), strict=True)
        if label in places
    ]
    return Pictures(tuple(path for path, _ in chosen), tuple(label for _, label in chosen))


def _folders(folder: Path) -> list[str]:
    names = [entry.name for entry in existing_folder(folder).iterdir() if entry.is_dir()]
    found = sorted(name for name in names if not name.startswith("."))
    if not found:
        raise UserError(f"{folder}: no class folders in it; see CoOp's DATASETS.md")
    return found


def _pictures(folder: Path, labels: Mapping[str, int]) -> Pictures:
    paths: list[Path] = []
    repeated: list[int] = []
    for name, label in labels.items():
        found = sorted(entry for entry in (folder / name).iterdir() if is_picture(entry))
        if not found:
            raise UserError(f"{folder / name}: no pictures in this class folder; fetch the data set again")
        paths += found
        repeated += [label] * len(found)
    return Pictures(tuple(paths), tuple(repeated))


def _class_names(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); CoOp's DATASETS.md has it") from None
    names: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        identity, _, name = line.strip().partition(" ")
        if not identity:
            continue
        if not name or identity in names:
            raise UserError(f"{file} line {number} ('{line}'): write <WordNet id> <class name>, each id once")
        names[identity] = name.strip()
    return names


def _named(ids: Sequence[str], names: Mapping[str, str], file: Path) -> tuple[str, ...]:
    missing = next((name for name in ids if name not in names), None)
    if missing is not None:
        raise UserError(f"{file}: has no name for the class folder '{missing}'; add a line for it")
    return tuple(names[name] for name in ids)
