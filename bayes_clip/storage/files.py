"""Files that are written whole or not at all, and tensor files that another file names by hash."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from bayes_clip.errors import UserError

UNFINISHED = ".part"  # what a process that was killed leaves behind


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it takes the name `path` only if all went well.

    What was written reaches the disk before the name does.

    Raises:
        UserError: the folder is missing or cannot be written, or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"{path}: cannot write there ({error.strerror}); choose another place") from None
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; these are ordinary results
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror}); choose another place") from None
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all; refusals as in `written_whole`."""
    with written_whole(path) as temporary:
        temporary.write_bytes(content)


def write_tensors(folder: Path, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Write tensors into ``<prefix>-<hash>.safetensors``; returns the entry that `read_tensors` takes.

    The device is not kept: every reader gets them on the CPU.
    """
    content = save(_apart(tensors))
    digest = hashlib.sha256(content).hexdigest()
    name = f"{prefix}-{digest[:16]}.safetensors"
    write_whole(folder / name, content)
    return {"tensors": name, "sha256": digest}


def read_tensors(folder: Path, entry: Mapping[str, Any], remedy: str) -> dict[str, Tensor]:
    """Read the tensor file that `entry` names; `remedy` ends the refusal.

    Raises:
        UserError: it is missing, truncated or changed.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("tensors"), str):
        raise UserError(f"{folder}: its JSON does not name its tensors; {remedy}")
    path = folder / Path(entry["tensors"]).name
    if not path.is_file():
        raise UserError(f"{path}: is missing; {remedy}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.get("sha256"):
        raise UserError(f"{path}: was truncated or changed (its hash is another); {remedy}")
    # cloned: matrix products round otherwise where memory is aligned otherwise
    return {name: tensor.clone() for name, tensor in load(content).items()}


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in the same memory (a prior mean may be the text features)."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        apart[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(plain.untyped_storage().data_ptr())
    return apart


def remove_others(folder: Path, prefix: str, kept: str | None) -> None:
    """Remove the tensor files of `prefix` but `kept`, and what a killed process left unfinished."""
    for pattern in (f"{prefix}-*.safetensors", f".{prefix}[-.]*{UNFINISHED}"):
        for old in folder.glob(pattern):
            if old.name != kept:
                old.unlink(missing_ok=True)
