"""Files are written whole, and tensor files are what their hash says."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch

from bayes_clip.errors import UserError
from bayes_clip.storage.files import read_tensors, remove_others, write_tensors, write_whole, written_whole


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(KeyError), written_whole(path) as temporary:
        temporary.write_bytes(b"ne")
        assert path.read_bytes() == b"old"
        raise KeyError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write there"):
        write_whole(tmp_path / "nowhere" / "file", b"")


def test_tensors_come_back_as_they_were_even_where_they_share_memory(tmp_path: Path) -> None:
    matrix = torch.arange(6, dtype=torch.float64).reshape(2, 3)
    tensors = {"turned": matrix.mT, "row": matrix[0], "whole": matrix, "same": matrix, "none": matrix[:0]}
    entry = write_tensors(tmp_path, "some", tensors)
    assert entry == write_tensors(tmp_path, "some", tensors)  # the name is the content's
    read = read_tensors(tmp_path, entry, "do it again")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor) and read[name].data_ptr() % 64 == 0
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"was truncated or changed \(its hash is another\); do it again"):
        read_tensors(tmp_path, entry, "do it again")
    path.unlink()
    with pytest.raises(UserError, match="is missing; do it again"):
        read_tensors(tmp_path, entry, "do it again")
    outside = {**entry, "tensors": f"../{tmp_path.name}/{entry['tensors']}"}
    with pytest.raises(UserError, match="is missing"):
        read_tensors(tmp_path / "elsewhere", outside, "do it again")


def test_others_are_removed_and_nothing_else(tmp_path: Path) -> None:
    stay = ("some-1.safetensors", "other-2.safetensors", "some.json", ".hidden", "somebody-3.safetensors")
    for name in (*stay, "some-2.safetensors", ".some.json.x.part", ".some-1.safetensors.y.part"):
        (tmp_path / name).touch()
    remove_others(tmp_path, "some", "some-1.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {*stay}
