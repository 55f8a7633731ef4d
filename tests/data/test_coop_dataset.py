from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from coop_sets import SHAPES, coop_split, save_shapes, write_split

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.coop_dataset import is_coop_dataset, scan_coop_dataset
from bayes_clip.data.coop_layouts import LAYOUTS, SHIFTS
from bayes_clip.data.resolve import load_task
from bayes_clip.errors import UserError


@pytest.fixture(scope="module")
def textures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coop_split(tmp_path_factory.mktemp("root") / "dtd")


def test_the_eleven_data_sets_and_their_prompts_are_those_of_the_protocol() -> None:
    assert len({layout.folder for layout in (*LAYOUTS, *SHIFTS)}) == 15
    prompts = {layout.folder: layout.template for layout in LAYOUTS}
    assert prompts["dtd"] == "{} texture." and prompts["food-101"] == "a photo of {}, a type of food."
    assert prompts["eurosat"] == "a centered satellite photo of {}."
    assert prompts["ucf101"] == "a photo of a person doing {}."
    assert all("{}" in layout.template and "http" in layout.page for layout in (*LAYOUTS, *SHIFTS))


def test_train_is_the_support_pool_and_test_the_query_set_and_val_is_left_alone(textures: Path) -> None:
    assert is_coop_dataset(textures) and not is_coop_dataset(textures / "images")
    folder = scan_coop_dataset(textures)
    assert folder.class_names == SHAPES  # in the order of the labels, not of the alphabet
    assert len(folder.support) == 4 * 5 and len(folder.query) == 4 * 6
    split = json.loads((textures / "split_zhou_DescribableTextures.json").read_text())
    assert [path.relative_to(textures / "images").as_posix() for path in folder.support.paths] == [
        path for path, _, _ in split["train"]
    ]
    assert folder.query.labels == tuple(label for _, label, _ in split["test"])
    val = {textures / "images" / path for path, _, _ in split["val"]}
    assert not val & {*folder.support.paths, *folder.query.paths}
    assert folder.templates == ("{} texture.",)


def test_such_a_folder_is_a_task_with_the_prompts_of_coop(textures: Path, pocket: Backbone) -> None:
    task = load_task(textures, pocket)
    assert task.name == "dtd" and task.class_names == SHAPES
    assert task.templates == ("{} texture.",) and task.support_pictures is not None
    assert torch.equal(task.text_features, pocket.text_features(SHAPES, ["{} texture."]))  # type: ignore[arg-type]
    own = load_task(textures, pocket, templates="a small {}").text_features
    assert torch.equal(own, pocket.text_features(SHAPES, ["a small {}"]))  # type: ignore[arg-type]


def test_a_split_of_ones_own_has_the_prompts_of_the_backbone(tmp_path: Path) -> None:
    root = coop_split(tmp_path / "mine", "Mine", images=".", names=("circle", "star"))
    folder = scan_coop_dataset(root)
    assert folder.templates is None and folder.support.paths[0] == root / "circle" / "circle_0.png"


def test_an_underscore_in_a_class_name_is_a_space(tmp_path: Path) -> None:
    paths = save_shapes(tmp_path / "images", "star", 2)
    rows = [[paths[0].name, 0, "red_star"], [paths[1].name, 1, "b"]]
    write_split(tmp_path, {"train": rows, "test": rows})
    assert scan_coop_dataset(tmp_path).class_names == ("red star", "b")


def good_split() -> dict[str, Any]:
    rows = [["star_0.png", 0, "a"], ["star_1.png", 1, "b"]]
    return {"train": rows, "val": [], "test": [list(row) for row in rows]}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda split: split.pop("test"), 'needs "train" and "test"'),
        (lambda split: split.update(train=[]), '"train" is no list of pictures'),
        (lambda split: split["train"].append(["star_0.png", 1]), r"train entry 2 \(\['star_0.png', 1\]\)"),
        (lambda split: split["test"][1].__setitem__(1, -1), "test entry 1 has label -1"),
        (lambda split: split["test"][1].__setitem__(1, "1"), "test entry 1 has label '1'"),
        (
            lambda split: split["test"].append(["star_0.png", 7, "z"]),
            "test entry 2 has label 7, out of range",
        ),
        (lambda split: split["train"][1].__setitem__(1, 2), "test entry 1 has label 1, out of range"),
        (
            lambda split: split["train"].append(["star_0.png", 3, "d"]),
            "labels run to 3, and no train picture has label 2",
        ),
        (
            lambda split: split["test"][1].__setitem__(2, "bee"),
            "label 1 is 'b' in train entry 1 and 'bee' in test entry 1",
        ),
        (
            lambda split: split["test"][0].__setitem__(0, "gone.png"),
            r"images/gone\.png: no such picture \(test entry 0 of split_zhou_.*\.json; 1 of 2 are missing",
        ),
    ],
)
def test_bad_splits_are_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    save_shapes(tmp_path / "images", "star", 2)
    split = good_split()
    change(split)
    write_split(tmp_path, split)
    with pytest.raises(UserError, match=message):
        scan_coop_dataset(tmp_path)


def test_no_split_two_splits_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split file"):
        scan_coop_dataset(tmp_path)
    file = write_split(tmp_path, good_split())
    file.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        scan_coop_dataset(tmp_path)
    write_split(tmp_path, good_split(), "Other")
    with pytest.raises(UserError, match="2 split files"):
        scan_coop_dataset(tmp_path)


def test_aircraft_has_lists_of_its_own(tmp_path: Path) -> None:
    for index, path in enumerate(save_shapes(tmp_path / "images", "star", 4)):
        path.rename(path.with_name(f"{index}.jpg"))
    (tmp_path / "variants.txt").write_text("707-320\nA340 x\n")
    (tmp_path / "images_variant_train.txt").write_text("0 A340 x\n1 707-320\n")
    (tmp_path / "images_variant_test.txt").write_text("2 707-320\n3 A340 x\n")
    folder = scan_coop_dataset(tmp_path)
    assert folder.class_names == ("707-320", "A340 x") and folder.support.labels == (1, 0)
    assert folder.query.paths[0] == tmp_path / "images" / "2.jpg"
    assert folder.templates == ("a photo of a {}, a type of aircraft.",)
    (tmp_path / "images_variant_test.txt").write_text("2 727\n")
    with pytest.raises(UserError, match=r"images_variant_test\.txt line 1: variant '727' is not in"):
        scan_coop_dataset(tmp_path)
