"""Data sets made on the spot in the folders of CoOp: tiny pictures of shapes that pocket_clip knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bayes_clip.data.rendered_shapes import COLOURS, render_shape

SHAPES = ("square", "circle", "triangle", "star")  # not sorted: the order of a split is its own
WORDNET = ("n01", "n02", "n03", "n04", "n05")
WORDNET_NAMES = ("circle", "square", "triangle", "star", "cross")
Split = dict[str, list[list[Any]]]


def save_shapes(folder: Path, shape: str, count: int, seed: int = 0) -> list[Path]:
    """`count` pictures of one shape in various colours."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, len(shape), ord(shape[1])])
    paths = [folder / f"{shape}_{index}.png" for index in range(count)]
    for path in paths:
        picture = render_shape(shape, str(random.choice(list(COLOURS))), random).image
        Image.fromarray(np.asarray(picture, dtype=np.uint8)).save(path)
    return paths


def coop_split(
    root: Path,
    split_name: str = "DescribableTextures",
    images: str = "images",
    names: Sequence[str] = SHAPES,
    train: int = 5,
    test: int = 6,
    seed: int = 0,
) -> Path:
    """A data set with a split file; each class has `train`, one val and `test` pictures."""
    split: Split = {"train": [], "val": [], "test": []}
    for label, name in enumerate(names):
        paths = save_shapes(root / images / name, name, train + 1 + test, seed)
        parts = ["train"] * train + ["val"] + ["test"] * test
        for path, part in zip(paths, parts, strict=True):
            split[part].append([f"{name}/{path.name}", label, name])
    write_split(root, split, split_name)
    return root


def write_split(root: Path, split: Mapping[str, Any], split_name: str = "DescribableTextures") -> Path:
    """The split file, as JSON."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"split_zhou_{split_name}.json"
    path.write_text(json.dumps(split))
    return path


def imagenet(root: Path, train: int = 3, val: int = 3) -> Path:
    """A miniature of ImageNet with five classes under `root`, and of its variants: A has three of them."""
    lines = "".join(f"{name} {title}\n" for name, title in zip(WORDNET, WORDNET_NAMES, strict=True))
    places = {
        "imagenet/images/train": (WORDNET, train),
        "imagenet/images/val": (WORDNET, val),
        "imagenetv2/imagenetv2-matched-frequency-format-val": (("0", "1", "2", "3", "4"), 2),
        "imagenet-sketch/images": (WORDNET, 2),
        "imagenet-adversarial/imagenet-a": (("n02", "n04", "n05"), 2),
    }
    for seed, (folder, (names, count)) in enumerate(places.items()):
        for name in names:
            label = int(name) if name.isdecimal() else WORDNET.index(name)
            save_shapes(root / folder / name, WORDNET_NAMES[label], count, seed)
        (root / folder.split("/")[0] / "classnames.txt").write_text(lines)
    return root
