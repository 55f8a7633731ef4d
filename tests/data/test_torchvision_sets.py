"""Torchvision's data sets, made in miniature on disk in the folders that torchvision reads."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from coop_sets import save_shapes
from torchvision import datasets

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.digit_images import digit_images
from bayes_clip.data.resolve import load_task
from bayes_clip.data.torchvision_sets import named, scan_torchvision
from bayes_clip.data.torchvision_table import KNOWN
from bayes_clip.errors import UserError

NAMES = ("square", "circle")


def eurosat(root: Path, count: int = 4) -> Path:
    for name in ("BlueSquare", "RedCircle"):
        save_shapes(root / "eurosat" / "2750" / name, name[-6:].lower().strip(), count)
    return root


def food(root: Path) -> Path:
    folder = root / "food-101"
    meta: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name in NAMES:
        for path in save_shapes(folder / "images" / name, name, 5):
            path.rename(path.with_suffix(".jpg"))  # read by its content
        for part, numbers in (("train", (0, 1, 2)), ("test", (3, 4))):
            meta[part][name] = [f"{name}/{name}_{number}" for number in numbers]
    (folder / "meta").mkdir()
    for part, listed in meta.items():
        (folder / "meta" / f"{part}.json").write_text(json.dumps(listed))
    return root


def mnist(root: Path, count: int = 30) -> Path:
    """Real digits in the files of MNIST."""
    images, labels = digit_images()
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, start in (("train", 0), ("t10k", count)):
        chosen = slice(start, start + count)
        grey = images[chosen, :28, :28, 0]
        header = struct.pack(">HBBIII", 0, 8, 3, *grey.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + grey.tobytes())
        header = struct.pack(">HBBI", 0, 8, 1, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels[chosen].astype(np.uint8).tobytes())
    return root


def test_a_set_of_one_part_is_halved_like_its_folder(tmp_path: Path, pocket: Backbone) -> None:
    root = eurosat(tmp_path)
    task = load_task(f"torchvision:eurosat:{root}", pocket, allow_unknown_classes=True)
    plain = load_task(root / "eurosat" / "2750", pocket, allow_unknown_classes=True)
    assert (task.name, task.class_names) == ("eurosat", ("blue square", "red circle"))
    assert task.templates == ("a centered satellite photo of {}.",)
    for name in ("support_features", "support_labels", "query_features", "query_labels"):
        assert torch.equal(getattr(task, name), getattr(plain, name)), name
    assert task.query_images is not None and len(task.query_images) == 4
    assert any("no test part" in note for note in task.notes)


def test_splits_are_torchvisions_own(tmp_path: Path, pocket: Backbone) -> None:
    asked = f"torchvision:food101:{food(tmp_path)}"
    task = load_task(asked, pocket, allow_unknown_classes=True)
    assert task.class_names == ("circle", "square")
    assert task.support_labels.tolist() == [1, 1, 1, 0, 0, 0] and task.query_labels.tolist() == [1, 1, 0, 0]
    assert task.support_pictures is not None
    assert task.support_pictures.names is not None
    assert task.support_pictures.names[2] == f"{asked} train row 2"
    own = datasets.Food101(str(tmp_path))[2][0].convert("RGB")
    read = list(task.support_pictures)[2]
    assert (np.asarray(read) == np.asarray(own)).all()
    more = load_task(asked, pocket, allow_unknown_classes=True, partial=True)
    assert more.is_partial and len(more.query_labels) == 0


def test_digits_have_names_and_no_mirror_images(tmp_path: Path, pocket: Backbone) -> None:
    task = load_task(f"torchvision:mnist:{mnist(tmp_path)}", pocket)
    assert task.class_names[:3] == ("zero", "one", "two") and task.num_classes == 10
    assert task.support_pictures is not None and not task.support_pictures.mirrors
    labels = digit_images()[1]
    assert task.query_labels.tolist() == labels[30:60].tolist()


def test_every_known_set_is_one_of_torchvisions_and_says_where_it_belongs(tmp_path: Path) -> None:
    for name, known in KNOWN.items():
        assert hasattr(datasets, known.kind), name
        asked = named(f"torchvision:{name}:{tmp_path / 'nowhere'}")
        with pytest.raises(UserError, match=r"not there; it belongs in .*nowhere.*nothing is downloaded"):
            scan_torchvision(asked)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match=r"torchvision:cifar10: .* data/cifar-10-batches-py"):
        load_task("torchvision:cifar10")


def test_a_set_that_torchvision_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(UserError, match=r"cannot read it \(Dataset not found or corrupted\); it belongs in"):
        scan_torchvision(named(f"torchvision:cifar10:{tmp_path}"))
    with pytest.raises(UserError, match=r"torchvision:cifr10: no data set.*Did you mean 'cifar10'"):
        load_task("torchvision:cifr10")


def test_a_broken_picture_is_named_by_its_row_or_skipped(tmp_path: Path, pocket: Backbone) -> None:
    root = eurosat(tmp_path, 6)
    broken = root / "eurosat" / "2750" / "RedCircle"
    for path in sorted(broken.iterdir())[1:3]:
        path.write_bytes(b"no picture")
    asked = f"torchvision:eurosat:{root}"
    with pytest.raises(UserError, match=r"eurosat.* train row [78]: cannot be read"):
        load_task(asked, pocket, allow_unknown_classes=True)
    task = load_task(asked, pocket, allow_unknown_classes=True, skip_broken=True)
    assert len(task.support_labels) + len(task.query_labels) == 10
