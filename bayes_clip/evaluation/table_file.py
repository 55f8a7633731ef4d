"""A table of results that grows row by row, and the choices that all its rows share, in one folder.

Every change replaces the file as a whole, so that a run that is killed leaves all rows that had ended, and
no half of one.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayes_clip.errors import UserError
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.write import write_csv
from bayes_clip.storage.files import UNFINISHED, write_whole, written_whole

Row = Mapping[str, Cell]
AGAIN = "give the same, or another --out"


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """The rows of a CSV file as text; none where there is no file.

    Raises:
        UserError: it cannot be read, a column of `needed` is missing, or a row is not whole.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from None
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{path}: has no column {missing[0]}; it is another table: give another --out")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise UserError(f"{path} line {number}: not as many values as columns; remove the line")
    return [dict(row) for row in rows]


def write_rows(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write `rows` under `columns` and whatever else they hold, whole or not at all."""
    every = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    with written_whole(path) as temporary:
        write_csv(temporary, every, rows)


def agree(path: Path, shared: Mapping[str, Any], data: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep in `path` what all rows of a table share and what its data sets are made of, or compare with it.

    Data sets may join; what is known of one, and what is shared, must stay.

    Raises:
        UserError: it names what is different.
    """
    asked = json.loads(json.dumps({"shared": dict(shared), "data": dict(data)}, default=str))
    kept = _read(path)
    for name, value in asked["shared"].items() if kept["shared"] else ():
        before = kept["shared"].get(name)
        if before != value:
            raise UserError(
                f"{path}: its rows were made with {name} {_said(before)}, now it is {_said(value)}; {AGAIN}"
            )
    for data_set, facts in asked["data"].items():
        for name, value in facts.items() if data_set in kept["data"] else ():
            before = kept["data"][data_set].get(name)
            if before != value:
                raise UserError(
                    f"{path}: its rows of {data_set} were made with {name} {_said(before)}, now it is "
                    f"{_said(value)}; {AGAIN}"
                )
    both = {"shared": asked["shared"], "data": {**kept["data"], **asked["data"]}}
    if both != kept:
        write_whole(path, (json.dumps(both, indent=2) + "\n").encode())


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed while it wrote left behind."""
    for part in folder.glob(f".*{UNFINISHED}"):
        part.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"shared": {}, "data": {}}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return {"shared": dict(kept["shared"]), "data": dict(kept["data"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path}: cannot be read; {AGAIN}") from None


def _said(value: Any) -> str:
    return "unset" if value is None else str(value)
