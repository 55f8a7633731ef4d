"""Pictures in tar archives as webdataset writes them: the members of a sample share their name up to a dot.

``shards-{000..012}.tar`` names a range of archives, a folder of ``.tar`` files all of them. A sample's class
is the whole number in its member ``.cls``. Archives are read where they lie, member by member.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bayes_clip.data.images import is_picture
from bayes_clip.data.sources import Listed, Listing, TarMember
from bayes_clip.errors import UserError

SUFFIX = ".tar"
LABEL = "cls"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MOST_ARCHIVES = 1_000_000
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass
class _Sample:
    """The members that were seen of one sample."""

    key: str = ""
    pictures: list[TarMember] = field(default_factory=list)
    label: int | None = None


def are_shards(path: Path) -> bool:
    """Whether `path` names tar archives: one, a range in braces, or a folder that holds no class folders."""
    if path.is_dir():
        entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        archives = any(entry.suffix == SUFFIX for entry in entries)
        return archives and not any(entry.is_dir() or is_picture(entry) for entry in entries)
    return path.name.endswith((SUFFIX, *COMPRESSED)) or (_RANGE.search(str(path)) is not None)


def list_shards(path: Path) -> Listing:
    """The pictures of tar archives in the order they lie in; labels where every picture has one.

    Raises:
        UserError: an archive that is missing, compressed, damaged or truncated, none with a picture, a
            ``.cls`` that is no whole number, or pictures of which only some have one.
    """
    archives = archives_of(path)
    count = labelled = 0
    unlabelled = None
    for listed in _walk(archives):
        count += 1
        labelled += listed.label is not None
        unlabelled = unlabelled or (listed.source.where if listed.label is None else None)
    if count == 0:
        raise UserError(f"{path}: no pictures in its {len(archives)} archives; check the path")
    if labelled and unlabelled:
        raise UserError(
            f"{unlabelled}: no member .cls beside it, and {labelled} of {count} pictures have one; "
            "give every picture its class, or none"
        )
    return Listing(path, lambda: _walk(archives), count, labelled=labelled > 0)


def archives_of(path: Path) -> tuple[Path, ...]:
    """The archives that `path` names, in order.

    Raises:
        UserError: one of them is missing or compressed, or braces that name no range.
    """
    if path.is_dir():
        found = [entry for entry in sorted(path.iterdir()) if entry.suffix == SUFFIX and entry.is_file()]
    else:
        found = [Path(name) for name in _expanded(str(path))]
    for archive in found:
        if archive.name.endswith(COMPRESSED):
            raise UserError(f"{archive}: a compressed archive; unpack it to a plain .tar first")
        if not archive.is_file():
            raise UserError(f"{archive}: no such archive; check the path")
    return tuple(found)


def _expanded(name: str) -> list[str]:
    """``a-{00..02}`` as a-00, a-01, a-02; several ranges in one name each run through."""
    match = _RANGE.search(name)
    if match is None:
        return [name]
    first, last = match.groups()
    if int(first) > int(last) or int(last) - int(first) >= MOST_ARCHIVES:
        raise UserError(f"{name}: {match[0]} is no range of archives; write the first number first")
    width = len(first) if first.startswith("0") or len(first) == len(last) else 0
    before, after = name[: match.start()], _expanded(name[match.end() :])
    return [
        f"{before}{number:0{width}d}{rest}" for number in range(int(first), int(last) + 1) for rest in after
    ]


def _walk(archives: Sequence[Path]) -> Iterator[Listed]:
    for archive in archives:
        sample = _Sample()
        for member in _members(archive):
            folder, _, base = member.name.rpartition("/")
            stem, _, extension = base.partition(".")
            key = f"{folder}/{stem}"
            if key != sample.key:
                yield from _listed(sample)
                sample = _Sample(key)
            if extension.lower() == LABEL:
                sample.label = _class_of(member)
            elif is_picture(PurePosixPath(base)):
                sample.pictures.append(member)
        yield from _listed(sample)


def _listed(sample: _Sample) -> Iterator[Listed]:
    return (Listed(picture, sample.label) for picture in sample.pictures)


def _members(archive: Path) -> Iterator[TarMember]:
    """The plain files of an archive that are not hidden."""
    try:
        size = archive.stat().st_size
        with tarfile.open(archive, "r:") as opened:
            for member in opened:
                opened.members = []  # type: ignore[attr-defined]  # else it remembers every one
                if member.offset_data + member.size > size:
                    raise tarfile.ReadError("unexpected end of data")
                if member.isfile() and not PurePosixPath(member.name).name.startswith("."):
                    yield TarMember(archive, member.name, member.offset_data, member.size)
    except (tarfile.TarError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{archive}: damaged or no plain tar archive ({reason}); copy it again") from None
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror}); check the archive") from None


def _class_of(member: TarMember) -> int:
    text = member.read().decode("ascii", "replace").strip()
    if not text.isdigit():
        raise UserError(f"{member.where}: '{text[:20]}' is no class; write a whole number from 0 on")
    return int(text)
