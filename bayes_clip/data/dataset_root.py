"""What data sets lie under one root: CoOp's by their folders, pictures in class folders, feature tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_clip.data.arrays import is_array_file
from bayes_clip.data.coop_dataset import is_coop_dataset
from bayes_clip.data.coop_layouts import IMAGENET, LAYOUTS, SHIFTS, Layout
from bayes_clip.data.image_folder import existing_folder
from bayes_clip.data.images import is_picture
from bayes_clip.errors import UserError, nearest

OUTPUT_MARK = "protocol.json"  # in a folder that the protocol wrote, whose figures are no data set


@dataclass(frozen=True)
class DataSet:
    """One data set: what it is called in tables, and its folder or file."""

    name: str
    path: Path

    @property
    def is_features(self) -> bool:
        """Whether it is a feature task."""
        return not self.path.is_dir()

    @property
    def is_coop(self) -> bool:
        """Whether it is arranged as CoOp has it; a folder called as one of CoOp's must be."""
        return is_coop_dataset(self.path) or self.name in {layout.folder for layout in LAYOUTS}


@dataclass(frozen=True)
class Found:
    """The data sets that are there, variants of ImageNet that are there, and what is missing."""

    data_sets: tuple[DataSet, ...]
    shifts: tuple[tuple[Layout, Path], ...]
    missing: tuple[Layout, ...]


def find_data_sets(root: str | Path, wanted: Sequence[str] | None = None, with_shifts: bool = False) -> Found:
    """The data sets under `root`: CoOp's in its order, then all others by name; `wanted` chooses by name.

    A data set is called as its folder, or as its file without the ending. Folders without pictures are left
    out. `with_shifts` looks for the variants of ImageNet, which needs ImageNet.

    Raises:
        UserError: no such root, a data set itself as the root, a name that is not there and none of CoOp's,
            two of one name, or ImageNet missing where its variants are asked for.
    """
    root = existing_folder(root)
    if is_coop_dataset(root):
        raise UserError(f"{root}: one data set, not a folder of data sets; give {root.resolve().parent}")
    known = {layout.folder: layout for layout in LAYOUTS}
    found = [DataSet(name, root / name) for name in known if (root / name).is_dir()]
    found += _others(root, {*known, *(layout.folder for layout in SHIFTS)})
    _refuse_twins(root, found)
    names = [data_set.name for data_set in found]
    for name in wanted or ():
        if name not in names and name not in known:
            hint = nearest(name, [*names, *known])
            raise UserError(f"--datasets {name}: not in {root}.{hint} There: {', '.join(names) or 'nothing'}")
    asked = [*known, *names] if wanted is None else list(wanted)
    chosen = tuple(data_set for data_set in found if data_set.name in asked)
    missing = tuple(layout for name, layout in known.items() if name in asked and name not in names)
    if not with_shifts:
        return Found(chosen, (), missing)
    if IMAGENET.folder not in {data_set.name for data_set in chosen}:
        raise UserError(
            f"--shift: what is learned on {IMAGENET.title} is tried on its variants, and it is not in {root} "
            f"or not among --datasets; see {IMAGENET.page}"
        )
    there = tuple((layout, root / layout.folder) for layout in SHIFTS if (root / layout.folder).is_dir())
    absent = tuple(layout for layout in SHIFTS if not (root / layout.folder).is_dir())
    return Found(chosen, there, (*missing, *absent))


def _others(root: Path, known: set[str]) -> list[DataSet]:
    found = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith(".") or entry.name in known:
            continue
        if entry.is_file() and is_array_file(entry):
            found.append(DataSet(entry.stem, entry))
        elif entry.is_dir() and not (entry / OUTPUT_MARK).exists() and _has_pictures(entry):
            found.append(DataSet(entry.name, entry))
    return found


def _has_pictures(folder: Path) -> bool:
    """Whether it holds pictures in class folders, perhaps under ``train/``, or a split file."""
    return is_coop_dataset(folder) or any(
        is_picture(path) for depth in ("*/*", "*/*/*") for path in folder.glob(depth)
    )


def _refuse_twins(root: Path, found: Sequence[DataSet]) -> None:
    first: dict[str, DataSet] = {}
    for data_set in found:
        twin = first.setdefault(data_set.name, data_set)
        if twin is not data_set:
            raise UserError(
                f"{root}: {twin.path.name} and {data_set.path.name} would both be called '{data_set.name}'; "
                "rename one"
            )
