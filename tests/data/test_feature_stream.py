"""Features of any number of pictures in a file: what `save_feature_file` would write, in bounded memory."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data import encode_stream as stream
from bayes_clip.data import feature_stream
from bayes_clip.data.encode import encode_files
from bayes_clip.data.feature_file import load_feature_file
from bayes_clip.data.feature_stream import write_features
from bayes_clip.data.listing import list_pictures
from bayes_clip.data.resolve import load_input
from bayes_clip.data.store_contents import list_kept
from bayes_clip.errors import UserError

SavePictures = Callable[..., Path]
PETS = tuple(f"{pet}/{number:03d}.png" for pet in ("cat", "sea_otter") for number in range(5))
ANALYSIS = Path(__file__).parents[2] / "analysis"


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_the_file_holds_what_input_does(
    suffix: str, save_pictures: SavePictures, pocket: Backbone, tmp_path: Path
) -> None:
    root = save_pictures(*PETS, "cat/ünder_the_🌳.png")
    out = tmp_path / f"out.{suffix}"
    written = write_features(pocket, list_pictures(root), out)
    assert (written.rows, written.encoded, written.notes) == (11, 11, [])
    read, wanted = load_feature_file(out), load_input(root, pocket)
    assert torch.equal(read.features, wanted.features) and torch.equal(read.norms, wanted.norms)
    assert (read.paths, read.class_names, read.backbone, read.precision) == (
        wanted.paths,
        wanted.class_names,
        wanted.backbone,
        wanted.precision,
    )
    assert read.labels is not None and torch.equal(read.labels, wanted.labels)  # type: ignore[arg-type]


def test_rows_are_as_they_left_the_encoder(
    save_pictures: SavePictures, pocket: Backbone, tmp_path: Path
) -> None:
    root = save_pictures("b.png", "a.png")
    write_features(pocket, list_pictures(root), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as archive:
        raw = encode_files(pocket, [root / "a.png", root / "b.png"]).features
        assert np.array_equal(archive["features"], raw.numpy())
        assert set(archive.files) == {"features", "paths", "backbone", "precision"}


def test_many_small_blocks_make_the_same_file(
    save_pictures: SavePictures, pocket: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = list_pictures(save_pictures(*PETS))
    write_features(pocket, listing, tmp_path / "one.npz")
    monkeypatch.setattr(stream, "FOUND_AT_ONCE", 1)
    blocks = list(stream.encode_stream(pocket, listing, workers=1))
    assert max(len(block.features) for block in blocks) <= stream.batch_size(pocket) + 1
    write_features(pocket, listing, tmp_path / "many.npz", workers=2)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "many.npz").read_bytes()


def test_broken_pictures_are_named_or_left_out(
    save_pictures: SavePictures, pocket: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_pictures(*PETS)
    for name in PETS[:3]:
        (root / name).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"000\.png: no picture"):
        write_features(pocket, list_pictures(root), tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
    monkeypatch.setattr(feature_stream, "NAMED_BROKEN", 2)
    written = write_features(pocket, list_pictures(root), tmp_path / "out.npz", skip_broken=True)
    assert (written.rows, written.broken, len(written.notes)) == (7, 3, 3)
    read = load_feature_file(tmp_path / "out.npz")
    assert read.labels is not None and read.labels.tolist() == [0, 0, 1, 1, 1, 1, 1]
    for name in PETS:
        (root / name).write_bytes(b"broken")
    with pytest.raises(UserError, match=r"none of 10 pictures can be read; the first: .*000\.png: no"):
        write_features(pocket, list_pictures(root), tmp_path / "none.npz", skip_broken=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.npz", "pictures"]


def test_features_that_are_nothing_are_refused_by_name(
    save_pictures: SavePictures, pocket: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = save_pictures("a.png", "b.png")
    plain = Backbone.encode_pixels

    def dead(self: Backbone, *arguments: object, **options: object) -> torch.Tensor:
        features = plain(self, *arguments, **options)  # type: ignore[arg-type]
        return features * torch.tensor([[1.0], [0.0]]).expand(32, 2, 1).reshape(64, 1)

    monkeypatch.setattr(Backbone, "encode_pixels", dead)
    with pytest.raises(UserError, match=r"b\.png: its features are zero, NaN or infinite"):
        write_features(pocket, list_pictures(root), tmp_path / "out.npz")


def test_paths_too_long_for_safetensors_are_refused(
    save_pictures: SavePictures, pocket: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_stream, "LARGEST_HEADER", 100)
    with pytest.raises(UserError, match=r"out\.safetensors: too many paths .*name it \.npz"):
        write_features(pocket, list_pictures(save_pictures(*PETS)), tmp_path / "out.safetensors")


def test_killed_and_resumed_the_file_is_the_same_byte_for_byte(tmp_path: Path, pocket: Backbone) -> None:
    sys.path.insert(0, str(ANALYSIS))
    study = importlib.import_module("features_of_many")
    study.render(tmp_path / "pictures", 400, large=False)
    store = tmp_path / "store"
    told = study.command(tmp_path / "pictures", tmp_path / "resumed.npz", store, [])
    process = subprocess.Popen(told, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (store.is_dir() and sum(one.rows for one in list_kept(store))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = sum(one.rows for one in list_kept(store))
    assert not (tmp_path / "resumed.npz").exists() and 0 < kept <= 400
    resumed = study.run(told)
    assert resumed["encoded"] == 400 - kept or kept == 400
    assert resumed["peak_mb"] < 2000
    pictures = list_pictures(tmp_path / "pictures")
    whole = write_features(pocket, pictures, tmp_path / "whole.npz")
    assert whole.encoded == 400 and 0 < whole.waited < whole.seconds
    assert (tmp_path / "whole.npz").read_bytes() == (tmp_path / "resumed.npz").read_bytes()
    assert {entry.name for entry in tmp_path.iterdir() if entry.is_file()} == {"resumed.npz", "whole.npz"}


def test_memory_does_not_grow_with_the_number_of_pictures(
    save_pictures: SavePictures, pocket: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a block of pictures is read ahead of what was encoded."""
    (path,) = save_pictures("a.png").iterdir()
    listed = next(iter(list_pictures(path)))
    taken, most = 0, 0

    def walk() -> object:
        nonlocal taken
        for _ in range(400):
            taken += 1
            yield listed

    done = 0
    for block in stream.encode_stream(pocket, walk(), workers=2):  # type: ignore[arg-type]
        done += len(block.features)
        most = max(most, taken - done)
    assert done == 400 and most <= 2 * stream.batch_size(pocket)
