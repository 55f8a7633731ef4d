from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from coop_sets import save_shapes

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data import remembered as module
from bayes_clip.data.encode import encode_files
from bayes_clip.data.feature_file import load_feature_file
from bayes_clip.data.remembered import Remembered
from bayes_clip.errors import UserError


@pytest.fixture
def encoded_counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    counts: list[int] = []

    def counted(backbone: Backbone, paths: list[Path], **options: object) -> object:
        counts.append(len(paths))
        return encode_files(backbone, paths, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "encode_files", counted)
    return counts


def test_no_picture_is_encoded_twice(pocket: Backbone, tmp_path: Path, encoded_counts: list[int]) -> None:
    paths = save_shapes(tmp_path / "star", "star", 4)
    memory = Remembered(tmp_path / "features", "mine")
    first = memory(pocket, paths[:3])
    assert torch.equal(first.features, encode_files(pocket, paths[:3]).features)
    again = memory(pocket, [paths[2], paths[0], paths[3]])
    assert encoded_counts == [3, 1]
    assert torch.equal(again.features[:2], first.features[[2, 0]]) and again.kept == (0, 1, 2)
    os.utime(paths[0], ns=(1, 1))
    memory(pocket, paths)
    assert encoded_counts == [3, 1, 1]
    (file,) = (tmp_path / "features").iterdir()
    assert pocket.fingerprint in file.name and load_feature_file(file).backbone == pocket.fingerprint


def test_broken_pictures_and_files_are_named(pocket: Backbone, tmp_path: Path) -> None:
    paths = save_shapes(tmp_path / "star", "star", 3)
    paths[1].write_bytes(b"broken")
    memory = Remembered(tmp_path / "features", "mine")
    with pytest.raises(UserError, match=r"star_1\.png: no picture"):
        memory(pocket, paths)
    assert memory(pocket, paths, skip_broken=True).kept == (0, 2)
    with pytest.raises(UserError, match="none of 1 pictures can be read"):
        memory(pocket, [paths[1]], skip_broken=True)
    (file,) = (tmp_path / "features").iterdir()
    file.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"damaged or not a \.npz archive"):
        memory(pocket, paths[:1])
