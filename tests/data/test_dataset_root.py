from __future__ import annotations

from pathlib import Path

import pytest
from coop_sets import coop_split, imagenet, save_shapes

from bayes_clip.data.coop_layouts import LAYOUTS
from bayes_clip.data.dataset_root import find_data_sets
from bayes_clip.errors import UserError


def test_all_kinds_of_data_sets_are_found_and_the_missing_ones_are_known(tmp_path: Path) -> None:
    coop_split(tmp_path / "eurosat", "EuroSAT", "2750", ("star", "ring"), 1, 1)
    coop_split(tmp_path / "dtd", names=("star", "ring"), train=1, test=1)
    coop_split(tmp_path / "mine", "Mine", names=("star", "ring"), train=1, test=1)
    save_shapes(tmp_path / "photos" / "star", "star", 2)
    (tmp_path / "features.npz").touch()
    (tmp_path / "notes").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "protocol.json").write_text("{}")
    save_shapes(tmp_path / "runs" / "figures", "star", 1)
    found = find_data_sets(tmp_path)
    assert [data_set.name for data_set in found.data_sets] == ["dtd", "eurosat", "features", "mine", "photos"]
    assert [data_set.is_coop for data_set in found.data_sets] == [True, True, False, True, False]
    assert [data_set.is_features for data_set in found.data_sets] == [False, False, True, False, False]
    assert {layout.folder for layout in found.missing} == {one.folder for one in LAYOUTS} - {"dtd", "eurosat"}


def test_data_sets_are_chosen_by_name(tmp_path: Path) -> None:
    save_shapes(tmp_path / "photos" / "star", "star", 1)
    found = find_data_sets(tmp_path, ["photos", "dtd"])
    assert [one.name for one in found.data_sets] == ["photos"]
    assert [layout.folder for layout in found.missing] == ["dtd"]
    with pytest.raises(UserError, match=r"--datasets photo: not in .* Did you mean 'photos'\? There: photos"):
        find_data_sets(tmp_path, ["photo"])


def test_a_data_set_is_no_root_and_names_are_told_apart(tmp_path: Path) -> None:
    coop_split(tmp_path / "dtd", names=("star", "ring"), train=1, test=1)
    with pytest.raises(UserError, match=r"one data set, not a folder of data sets; give .*"):
        find_data_sets(tmp_path / "dtd")
    (tmp_path / "dtd.npz").touch()
    with pytest.raises(UserError, match=r"dtd and dtd\.npz would both be called 'dtd'"):
        find_data_sets(tmp_path)


def test_variants_need_imagenet(tmp_path: Path) -> None:
    save_shapes(tmp_path / "photos" / "star", "star", 1)
    with pytest.raises(UserError, match="--shift: what is learned on ImageNet"):
        find_data_sets(tmp_path, with_shifts=True)
    imagenet(tmp_path, 1, 1)
    found = find_data_sets(tmp_path, ["imagenet"], with_shifts=True)
    assert [layout.title for layout, _ in found.shifts] == ["ImageNetV2", "ImageNet-Sketch", "ImageNet-A"]
    assert [layout.title for layout in found.missing] == ["ImageNet-R"]
    assert all(not shift.name.startswith("imagenet-") for shift in find_data_sets(tmp_path).data_sets)
