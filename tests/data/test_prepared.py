from __future__ import annotations

from pathlib import Path

import pytest
import torch
from coop_sets import coop_split, imagenet, save_shapes
from small_problems import tiny_task

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.dataset_root import find_data_sets
from bayes_clip.data.feature_file import save_feature_task
from bayes_clip.data.prepared import Draws, Reading, prepare_all
from bayes_clip.data.resolve import load_task
from bayes_clip.data.task import few_shot
from bayes_clip.errors import UserError

DRAWS = Draws((1, 2), (1, 2))


def test_only_what_is_drawn_is_encoded_and_draws_are_those_from_the_whole(
    pocket: Backbone, tmp_path: Path
) -> None:
    coop_split(tmp_path / "root" / "dtd", train=8, test=2)
    reading = Reading(pocket)
    (prepared,), shifts = prepare_all(find_data_sets(tmp_path / "root"), reading, DRAWS)
    assert prepared.task.name == "dtd" and shifts == []
    assert len(prepared.task.support_labels) <= 4 * 4 < len(prepared.pool.labels) == 4 * 8
    whole = load_task(tmp_path / "root" / "dtd", pocket)
    for shots in DRAWS.shots:
        for seed in DRAWS.seeds:
            drawn = few_shot(prepared.task, shots, seed, prepared.pool)
            wanted = few_shot(whole, shots, seed)
            assert torch.allclose(drawn.support_features, wanted.support_features, atol=1e-5)
            assert torch.equal(drawn.support_labels, wanted.support_labels)
            assert drawn.support_pictures is not None and len(drawn.support_pictures) == 4 * shots
    assert prepared.identity["support"] == 32 and prepared.identity["backbone"] == pocket.fingerprint


def test_a_link_has_the_name_of_the_data_set(pocket: Backbone, tmp_path: Path) -> None:
    coop_split(tmp_path / "elsewhere", names=("star", "ring"), train=2, test=1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "dtd").symlink_to(tmp_path / "elsewhere")
    (prepared,), _ = prepare_all(find_data_sets(tmp_path / "root"), Reading(pocket), DRAWS)
    assert prepared.task.name == "dtd"


def test_skipping_broken_pictures_draws_from_those_that_can_be_read(pocket: Backbone, tmp_path: Path) -> None:
    root = coop_split(tmp_path / "root" / "dtd", train=3, test=1)
    (root / "images" / "star" / "star_0.png").write_bytes(b"broken")
    found = find_data_sets(tmp_path / "root")
    with pytest.raises(UserError, match=r"star_0\.png: no picture"):
        prepare_all(found, Reading(pocket), Draws((3,), (1,)))
    (prepared,), _ = prepare_all(found, Reading(pocket, skip_broken=True), Draws((3,), (1,)))
    assert len(prepared.pool.labels) == 4 * 3 - 1
    assert len(few_shot(prepared.task, 3, 1, prepared.pool).support_labels) == 11


def test_a_feature_task_has_the_encoder_that_was_asked_for_if_it_is_its_own(
    pocket: Backbone, tmp_path: Path
) -> None:
    own = load_task(coop_split(tmp_path / "pictures", names=("star", "ring"), train=2, test=1), pocket)
    (tmp_path / "root").mkdir()
    save_feature_task(own, tmp_path / "root" / "own.npz")
    save_feature_task(tiny_task(name="other"), tmp_path / "root" / "other.npz")
    found = find_data_sets(tmp_path / "root")
    asked, _ = prepare_all(found, Reading(pocket), DRAWS)
    assert [one.task.encoder for one in asked] == [None, pocket]
    unasked, _ = prepare_all(found, Reading(None), DRAWS)
    assert [one.task.encoder for one in unasked] == [None, None]
    assert [one.identity for one in asked] == [one.identity for one in unasked]


def test_all_is_listed_before_anything_is_encoded(pocket: Backbone, tmp_path: Path) -> None:
    coop_split(tmp_path / "root" / "dtd", names=("star", "ring"), train=1, test=1)
    save_shapes(tmp_path / "root" / "eurosat" / "2750", "star", 1)
    with pytest.raises(UserError, match="eurosat: no split file"):
        prepare_all(find_data_sets(tmp_path / "root"), Reading(pocket), DRAWS)
    assert not (tmp_path / "features").exists()


def test_variants_of_imagenet_keep_its_classes_and_say_which_they_have(
    pocket: Backbone, tmp_path: Path
) -> None:
    imagenet(tmp_path / "root", 2, 1)
    found = find_data_sets(tmp_path / "root", with_shifts=True)
    (prepared,), shifts = prepare_all(found, Reading(pocket), DRAWS)
    assert [one.task.name for one in shifts] == ["imagenetv2", "imagenet-sketch", "imagenet-adversarial"]
    adversarial = shifts[-1]
    assert adversarial.classes == (1, 3, 4) and adversarial.task.query_labels.tolist() == [1, 1, 3, 3, 4, 4]
    assert adversarial.task.class_names == prepared.task.class_names
    assert torch.equal(adversarial.task.support_features, prepared.task.support_features)
    assert torch.allclose(adversarial.task.query_features.norm(dim=1), torch.ones(6), atol=1e-5)
