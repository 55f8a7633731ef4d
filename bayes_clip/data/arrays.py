"""Named arrays and strings in ``.npz`` and ``.safetensors`` files; nothing pickled, nothing half-written.

Strings (class names, paths, a backbone's fingerprint) are string arrays in ``.npz`` and JSON values in the
metadata of ``.safetensors``, which holds numbers only.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.storage.files import written_whole

SUFFIXES = (".npz", ".safetensors")

Strings = Mapping[str, "str | Sequence[str] | None"]


def is_array_file(path: Path) -> bool:
    """Whether the name of `path` says that it holds arrays."""
    return path.suffix.lower() in SUFFIXES


def read_arrays(path: Path, known: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the entries of `path` named in `known`, and the names of the entries left unread.

    Raises:
        UserError: no such file, not a file of its suffix, or an entry that is a pickled object.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    if not path.is_file() or not is_array_file(path):
        raise UserError(f"{path}: not a feature file; give a .npz or .safetensors file")
    if path.suffix.lower() == ".npz":
        return _read_npz(path, known)
    return _read_safetensors(path, known)


def check_destination(path: Path) -> None:
    """Refuse a place where `write_arrays` could not write; worth asking before an hour of encoding.

    Raises:
        UserError: another suffix than ``.npz`` or ``.safetensors``, or a folder that cannot be written.
    """
    if not is_array_file(path):
        raise UserError(f"{path}: unknown suffix '{path.suffix}'; name the file .npz or .safetensors")
    check_place(path)


def check_place(path: Path) -> None:
    """Refuse a file name under which nothing can be written.

    Raises:
        UserError: it is a folder, or lies in one that is missing or cannot be written to.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder, not a file; choose another name")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot write there (no such folder, or not yours); choose another place")


def write_arrays(path: Path, arrays: Mapping[str, Tensor], strings: Strings) -> None:
    """Write `arrays` and `strings` (entries that are None are left out) to `path`, whole or not at all.

    Raises:
        UserError: another suffix than ``.npz`` or ``.safetensors``, or a folder that cannot be written.
    """
    check_destination(path)
    present = {key: value for key, value in strings.items() if value is not None}
    with written_whole(path) as temporary:
        if path.suffix.lower() == ".npz":
            entries: dict[str, Any] = {key: tensor.cpu().numpy() for key, tensor in arrays.items()}
            entries |= {key: np.array(value, dtype=np.str_) for key, value in present.items()}
            with temporary.open("wb") as stream:
                np.savez(stream, **entries)
        else:
            metadata = {
                key: value if isinstance(value, str) else json.dumps(list(value), ensure_ascii=False)
                for key, value in present.items()
            }
            save_file({key: tensor.cpu().contiguous() for key, tensor in arrays.items()}, temporary, metadata)


def _read_npz(path: Path, known: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    if not zipfile.is_zipfile(path):  # numpy would read a single array, or offer to unpickle
        raise UserError(f"{path}: damaged or not a .npz archive; write it again with numpy.savez")
    found: dict[str, Any] = {}
    entry = ""
    try:
        with np.load(path, allow_pickle=False) as archive:
            for entry in known:
                if entry in archive.files:
                    found[entry] = archive[entry]
            unread = [key for key in archive.files if key not in known]
    except (ValueError, zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        if "allow_pickle=False" in str(error) and entry:
            raise UserError(
                f"{path}: {entry} is an array of Python objects, which only unsafe pickle can read; "
                f"store it as numbers, or names as numpy.array(names, dtype=str)"
            ) from None
        inside = f", at {entry}" if entry else ""
        raise UserError(f"{path}: damaged or not a .npz archive{inside}; write it again") from None
    return found, unread


def _read_safetensors(path: Path, known: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    try:
        with safe_open(path, framework="pt") as archive:
            keys = list(archive.keys())
            found: dict[str, Any] = {key: archive.get_tensor(key) for key in keys if key in known}
            metadata = dict(archive.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: damaged or not a safetensors file ({reason}); write it again") from None
    for key, value in metadata.items():
        if key in known and key not in found:
            found[key] = _json_or_text(value)
    # metadata is free for notes of any kind; only tensors that nothing reads deserve a word
    return found, [key for key in keys if key not in known]


def _json_or_text(value: str) -> Any:
    try:
        decoded = json.loads(value)
    except json.JSONDecodeError:
        return value
    return decoded if isinstance(decoded, list) else value
