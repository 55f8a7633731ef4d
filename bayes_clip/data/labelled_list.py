"""A table of paths and labels as a task: a CSV file with the columns path, label and perhaps split.

Paths are relative to the folder of the table. Labels are class names, in sorted order; where all of them are
whole numbers, in the order of these. Rows of split ``test`` are the query set, those of ``val`` are left out
(as everywhere here), and without the column half of each class is held out by a fixed draw.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bayes_clip.data.image_folder import ImageFolder, Pictures, hold_out_half
from bayes_clip.errors import UserError

SUFFIX = ".csv"
NEEDED, SPLIT = ("path", "label"), "split"
SPLITS = {
    **{"train": "train", "support": "train"},
    **{"test": "test", "query": "test"},
    **{"val": "val", "validation": "val"},
}


@dataclass(frozen=True)
class Line:
    """One row of the table: the line it ends on, where its picture lies, its class, its part."""

    number: int
    path: Path
    label: str
    split: str  # train, test or val


def is_labelled_list(path: str | Path) -> bool:
    """Whether `path` is a table by its ending."""
    return Path(path).suffix.lower() == SUFFIX and not Path(path).is_dir()


def scan_list(path: str | Path, partial: bool = False) -> ImageFolder:
    """List the pictures of the table `path`. A `partial` one is all support, and may have one class only.

    Raises:
        UserError: by line: a missing column, cell or picture, an unknown split, a picture that stands twice,
            a test row of a class without train rows; or one class only, or nothing to hold out.
    """
    path = Path(path)
    lines, notes, has_split = _read(path)
    train = [line for line in lines if partial or line.split == "train"]
    test = [] if partial else [line for line in lines if line.split == "test"]
    if not train:
        raise UserError(f"{path}: no row of split 'train'; at least two classes need some")
    if has_split and not partial and not test:
        raise UserError(f"{path}: no row of split 'test'; add some, or leave out the column to hold out half")
    names = _class_names(train, notes)
    if len(names) < 2 and not partial:
        raise UserError(f"{path}: one class only ('{names[0]}'); classification needs at least two")
    stranger = next((line for line in test if line.label not in names), None)
    if stranger is not None:
        raise UserError(
            f"{path} line {stranger.number}: class '{stranger.label}' has test rows but no train row; add one"
        )
    left_out = 0 if partial else sum(line.split == "val" for line in lines)
    notes += [f"rows of split 'val', which are left out: {left_out}"] if left_out else []
    support, query = _pictures(train, names), _pictures(test, names)
    if not has_split and not partial:
        support, query = hold_out_half(path, support, "add pictures or a column 'split'")
        notes.append("no column 'split': half of each class, by a fixed draw, is held out as query")
    return ImageFolder(
        path, tuple(name.replace("_", " ").strip() for name in names), support, query, tuple(notes)
    )


def _read(path: Path) -> tuple[list[Line], list[str], bool]:
    """The rows, remarks, and whether there is a column of splits."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from None
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: no CSV ({error}); correct its quotes") from None
    if not rows:
        raise UserError(f"{path}: is empty; its first line is path,label or path,label,split")
    header = [cell.strip().lower() for cell in rows[0][1]]
    for name in NEEDED:
        if header.count(name) != 1:
            raise UserError(
                f"{path} line {rows[0][0]}: needs one column '{name}' and has {', '.join(header)}; the first "
                "line is path,label or path,label,split, with commas"
            )
    unread = [name for name in header if name not in (*NEEDED, SPLIT)]
    lines = [_line(path, number, header, row) for number, row in rows[1:]]
    if not lines:
        raise UserError(f"{path}: has a heading and no rows; add a line for each picture")
    _check_pictures(path, lines)
    return lines, [f"{path.name}: {', '.join(unread)} not used"] if unread else [], SPLIT in header


def _line(path: Path, number: int, header: Sequence[str], row: Sequence[str]) -> Line:
    if len(row) != len(header):
        raise UserError(
            f"{path} line {number}: {len(row)} cells for {len(header)} columns; quote cells that hold commas"
        )
    cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
    for name in NEEDED:
        if not cells[name]:
            raise UserError(f"{path} line {number}: no {name}; fill it in or remove the line")
    split = SPLITS.get(cells.get(SPLIT, "train").lower())
    if split is None:
        raise UserError(
            f"{path} line {number}: split '{cells[SPLIT]}' is none of train, test and val; correct it"
        )
    return Line(number, path.parent / cells["path"], cells["label"], split)


def _check_pictures(path: Path, lines: Iterable[Line]) -> None:
    """Refuse a picture that is not there, and one that stands twice: in both parts it would be a leak."""
    first: dict[Path, int] = {}
    for line in lines:
        if line.path in first:
            raise UserError(
                f"{path} line {line.number}: {line.path} stands in line {first[line.path]} already; "
                "list every picture once"
            )
        first[line.path] = line.number
        if not line.path.is_file():
            raise UserError(
                f"{path} line {line.number}: {line.path}: no such picture; paths begin in the table's folder"
            )


def _class_names(lines: Iterable[Line], notes: list[str]) -> list[str]:
    names = sorted({line.label for line in lines})
    if not all(name.isascii() and name.isdigit() for name in names):
        return names
    notes.append("labels are numbers: as words they mean little to the text encoder; class names say more")
    return sorted(names, key=lambda name: (int(name), name))


def _pictures(lines: Sequence[Line], names: Sequence[str]) -> Pictures:
    places = {name: label for label, name in enumerate(names)}
    return Pictures(tuple(line.path for line in lines), tuple(places[line.label] for line in lines))
