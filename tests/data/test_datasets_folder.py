"""Pictures of a Hugging Face data set on disk, as they were saved, with the features of their files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from coop_sets import save_shapes

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.datasets_folder import opened
from bayes_clip.data.listing import list_pictures
from bayes_clip.data.resolve import load_input
from bayes_clip.errors import UserError

LABELS = [0, 1, 1, 0]


@pytest.fixture(scope="module")
def datasets() -> Any:
    return pytest.importorskip("datasets")


def saved(datasets: Any, folder: Path, **columns: Any) -> Path:
    """A data set with one column of pictures (paths or bytes) and the given other ones."""
    types = {
        "image": datasets.Image(),
        "second": datasets.Image(),
        "label": datasets.ClassLabel(names=["ring", "star"]),
        "words": datasets.Value("string"),
    }
    features = datasets.Features({name: types[name] for name in columns})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))
    return folder


def test_rows_have_the_features_of_their_files(datasets: Any, tmp_path: Path, pocket: Backbone) -> None:
    paths = save_shapes(tmp_path / "photos", "star", 4)
    wanted = load_input(tmp_path / "photos", pocket)
    for name, images in {
        "inside": [{"bytes": path.read_bytes(), "path": None} for path in paths],
        "beside": [str(path) for path in paths],
    }.items():
        read = load_input(saved(datasets, tmp_path / name, image=images, label=LABELS), pocket)
        assert torch.equal(read.features, wanted.features) and torch.equal(read.norms, wanted.norms)
        assert read.class_names == ("ring", "star") and read.labels is not None
        assert read.labels.tolist() == LABELS and read.paths == tuple(f"row {row}" for row in range(4))


def test_what_cannot_be_read_is_named(datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as refusal:
            [listed.source.read() for listed in list_pictures(path)]
        assert "\n" not in str(refusal.value)

    images = [str(path) for path in save_shapes(tmp_path / "photos", "star", 2)]
    refused(saved(datasets, tmp_path / "words", words=["a"]), "no column of pictures among words")
    refused(saved(datasets, tmp_path / "hole", image=[images[0], None]), "row 1, column image: no picture")
    refused(saved(datasets, tmp_path / "unlabelled", image=images, label=[1, None]), "a row has no class")
    whole = saved(datasets, tmp_path / "splits" / "train", image=images)
    (tmp_path / "splits" / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    refused(tmp_path / "splits", "several splits; give one of them: .*splits/train")
    two = datasets.load_from_disk(str(whole)).add_column("x", images).cast_column("x", datasets.Image())
    two.rename_columns({"image": "left", "x": "right"}).save_to_disk(str(tmp_path / "two"))
    refused(tmp_path / "two", r"several columns of pictures \(left, right\); call one of them image")
    for file in (tmp_path / "words").glob("*.arrow"):
        file.write_bytes(b"junk")
    opened.cache_clear()
    refused(tmp_path / "words", "words: damaged or empty data set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    opened.cache_clear()
    refused(whole, r'pip install "bayes-clip\[datasets\]"')
    opened.cache_clear()
