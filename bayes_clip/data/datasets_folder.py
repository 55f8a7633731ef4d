"""Pictures in a Hugging Face data set on disk, as ``Dataset.save_to_disk`` writes it (extra ``datasets``)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from bayes_clip.data.sources import DatasetRow, Listed, Listing
from bayes_clip.errors import UserError

ONE, SEVERAL = "state.json", "dataset_dict.json"
IMAGE, LABEL = "image", "label"  # what columns are called where there is more than one to choose from


def is_datasets_folder(path: Path) -> bool:
    """Whether `path` holds a data set, or several by the names of their splits."""
    return ((path / ONE).is_file() and (path / "dataset_info.json").is_file()) or (path / SEVERAL).is_file()


def list_datasets_folder(path: Path) -> Listing:
    """The pictures of a data set in the order of its rows, with labels where it has a column of classes.

    Raises:
        UserError: the library is not installed, several splits, no rows, no column of pictures or more than
            one and none called ``image``, or a row without a class.
    """
    if (path / SEVERAL).is_file():
        splits = sorted(entry.name for entry in path.iterdir() if (entry / ONE).is_file())
        raise UserError(
            f"{path}: several splits; give one of them: {', '.join(str(path / s) for s in splits)}"
        )
    table = opened(path)
    if not len(table):
        raise UserError(f"{path}: a data set without rows; check the path")
    image, label = _image_column(path, table), _label_column(table)
    names = None if label is None else tuple(str(name) for name in table.features[label].names)
    if label is not None and -1 in _labels(table, label):
        raise UserError(f"{path}: a row has no class in column {label}; remove such rows")

    def walk() -> Iterator[Listed]:
        truth = None if label is None else _labels(table, label)
        for row in range(len(table)):
            yield Listed(
                DatasetRow(path, image, row, f"row {row}"), None if truth is None else int(next(truth))
            )

    return Listing(path, walk, len(table), names, label is not None)


@lru_cache(maxsize=8)
def opened(path: Path) -> Any:
    """The data set at `path`, mapped into memory and not read."""
    try:
        from datasets import load_from_disk
    except ImportError:
        raise UserError(
            f'{path}: a Hugging Face data set; reading it needs: pip install "bayes-clip[datasets]"'
        ) from None
    try:
        return load_from_disk(str(path))
    except Exception as error:  # pyarrow, json and the library each have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: damaged or empty data set ({reason}); save it again with save_to_disk"
        ) from None


def _image_column(path: Path, table: Any) -> str:
    from datasets import Image

    found = [name for name, feature in table.features.items() if isinstance(feature, Image)]
    if len(found) == 1 or IMAGE in found:
        return found[0] if len(found) == 1 else IMAGE
    if not found:
        columns = ", ".join(table.features)
        raise UserError(f"{path}: no column of pictures among {columns}; cast it to datasets.Image")
    raise UserError(f"{path}: several columns of pictures ({', '.join(found)}); call one of them {IMAGE}")


def _label_column(table: Any) -> str | None:
    """The column of classes: the only one, or the one called ``label``."""
    from datasets import ClassLabel

    found = [name for name, feature in table.features.items() if isinstance(feature, ClassLabel)]
    if LABEL in found:
        return LABEL
    return found[0] if len(found) == 1 else None


def _labels(table: Any, column: str) -> Iterator[int]:
    """Classes row by row, a thousand at a time; -1 where there is none."""
    for batch in table.select_columns([column]).iter(1000):
        yield from (-1 if value is None else int(value) for value in batch[column])
