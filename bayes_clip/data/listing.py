"""What pictures INPUT means: one, a folder, a list of paths, tar shards or a Hugging Face data set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bayes_clip.data.datasets_folder import is_datasets_folder, list_datasets_folder
from bayes_clip.data.image_folder import existing_folder, readable_name
from bayes_clip.data.images import is_picture
from bayes_clip.data.sources import Listed, Listing, PictureFile
from bayes_clip.data.tar_shards import are_shards, list_shards
from bayes_clip.errors import UserError

LIST_SUFFIX = ".txt"


def list_pictures(path: str | Path) -> Listing:
    """The pictures that `path` means, in order; gone through once here, so that their number is known.

    A folder: all pictures at any depth, sorted by path; classes are the folders right under it where every
    picture lies in one. A ``.txt`` file: the paths in it, one a line, from the folder it lies in. Tar
    archives and data sets: see `list_shards` and `list_datasets_folder`.

    Raises:
        UserError: no such path, no picture in it, or what the listing of its kind refuses.
    """
    place = Path(path)
    if are_shards(place):
        return list_shards(place)
    if place.is_file():
        if place.suffix.lower() == LIST_SUFFIX:
            return _list_file(place)
        return Listing(place, lambda: iter([Listed(PictureFile(place))]), 1)
    place = existing_folder(place)
    return list_datasets_folder(place) if is_datasets_folder(place) else _list_folder(place)


def _list_folder(root: Path) -> Listing:
    count, in_classes, folders = 0, True, set()
    for picture in _walk(root):
        count += 1
        parts = picture.relative_to(root).parts
        in_classes = in_classes and len(parts) == 2
        if in_classes:
            folders.add(parts[0])
    if not count:
        raise UserError(f"{root}: no pictures in this folder; check the path")
    if not in_classes:
        return Listing(root, lambda: (Listed(PictureFile(picture)) for picture in _walk(root)), count)
    labels = {name: label for label, name in enumerate(sorted(folders))}

    def walk() -> Iterator[Listed]:
        for picture in _walk(root):
            yield Listed(PictureFile(picture), labels.get(picture.relative_to(root).parts[0]))

    return Listing(root, walk, count, tuple(readable_name(name) for name in labels), True)


def _walk(folder: Path) -> Iterator[Path]:
    """Pictures at any depth, as if all paths were sorted; the names of one folder are in memory."""
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); change its permissions") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if is_picture(entry) and not entry.is_dir():
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)


def _list_file(path: Path) -> Listing:
    count = 0
    for number, picture in _lines(path):
        if not picture.is_file():
            raise UserError(
                f"{path} line {number}: no such picture {picture}; write one path a line, absolute or from "
                "the folder of the list"
            )
        count += 1
    if not count:
        raise UserError(f"{path}: an empty list; write one path of a picture a line")
    return Listing(path, lambda: (Listed(PictureFile(picture)) for _, picture in _lines(path)), count)


def _lines(path: Path) -> Iterator[tuple[int, Path]]:
    """The paths in a list and the numbers of their lines."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                text = line.strip("\r\n")
                if text.strip():
                    yield number, path.parent / text
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); save it as UTF-8 text, one path a line") from None
