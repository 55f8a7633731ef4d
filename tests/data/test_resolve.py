from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_clip.backbone import encoder
from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.feature_file import make_feature_file, save_feature_file, save_feature_task
from bayes_clip.data.images import load_image
from bayes_clip.data.resolve import TASKS, load_input, load_task, with_ood
from bayes_clip.data.task import Task, make_task
from bayes_clip.errors import UserError

SavePictures = Callable[..., Path]
SHAPES = tuple(f"{shape}/{index}.png" for shape in ("circle", "square") for index in range(4))


@pytest.fixture
def shapes(save_pictures: SavePictures) -> Path:
    return save_pictures(*SHAPES)


@pytest.fixture
def feature_task(tmp_path: Path) -> tuple[Task, Path]:
    features = np.random.default_rng(0).normal(size=(4, 3))
    task = make_task("pets", features, [0, 0, 1, 1], features, [0, 0, 1, 1], backbone="1" * 16)
    path = tmp_path / "pets.npz"
    save_feature_task(task, path)
    return task, path


def test_a_folder_becomes_a_task(shapes: Path, pocket: Backbone) -> None:
    task = load_task(shapes, pocket)
    assert (task.name, task.class_names) == ("pictures", ("circle", "square"))
    assert (task.support_labels.tolist(), task.query_labels.tolist()) == ([0, 0, 1, 1], [0, 0, 1, 1])
    assert (task.backbone, task.logit_scale) == (pocket.fingerprint, pocket.logit_scale)
    assert task.query_images is not None and task.query_images.shape == (4, 3, 64, 64)
    assert torch.equal(task.text_features, pocket.text_features(["circle", "square"]))  # type: ignore[arg-type]
    assert any("no test/ folder" in note for note in task.notes)


def test_templates_reach_the_text_features(shapes: Path, pocket: Backbone) -> None:
    text = load_task(shapes, pocket, templates="a small {}").text_features
    assert torch.equal(text, pocket.text_features(["circle", "square"], ["a small {}"]))  # type: ignore[arg-type]


def test_pocket_clip_is_the_default(shapes: Path, pocket: Backbone) -> None:
    assert load_task(str(shapes)).backbone == pocket.fingerprint


def test_pocket_clip_serves_only_what_it_knows(save_pictures: SavePictures, pocket: Backbone) -> None:
    root = save_pictures("zebra/1.png", "zebra/2.png", "gnu/1.png")
    with pytest.raises(UserError, match=r"never saw the words gnu, zebra.*--backbone ViT-B-32 --pretrained"):
        load_task(root, pocket)
    task = load_task(root, pocket, allow_unknown_classes=True)
    assert task.class_names == ("gnu", "zebra")
    assert any("never saw 'gnu', 'zebra'" in note for note in task.notes)
    assert load_task(root, replace(pocket, vocabulary=None)).class_names == ("gnu", "zebra")


def test_broken_pictures_are_named_or_skipped(shapes: Path, pocket: Backbone) -> None:
    (shapes / "circle" / "0.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"circle/0\.png: no picture"):
        load_task(shapes, pocket)
    task = load_task(shapes, pocket, skip_broken=True)
    assert len(task.support_labels) + len(task.query_labels) == 7
    assert task.query_images is not None and len(task.query_images) == len(task.query_labels)
    assert any("skipped" in note and "0.png" in note for note in task.notes)


def test_a_feature_task_needs_no_backbone(
    feature_task: tuple[Task, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object, **__: object) -> Backbone:
        raise AssertionError("a feature task loaded a backbone")

    monkeypatch.setattr(encoder, "load_backbone", forbidden)
    task, path = feature_task
    assert torch.allclose(load_task(path).query_features, task.query_features)
    assert torch.allclose(load_input(path).features, task.query_features)


def test_a_built_in_task_by_name(pocket: Backbone) -> None:
    assert load_task("shapes", pocket).name == "shapes"
    assert set(TASKS) == {"digits", "digits_rotated", "digits_mirrored", "shapes"}


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"digits_rotatd: no such task.*Did you mean 'digits_rotated'\?"):
        load_task("digits_rotatd")


def test_a_picture_is_no_task(shapes: Path) -> None:
    with pytest.raises(UserError, match=r"0\.png: not a feature file"):
        load_task(shapes / "circle" / "0.png")


def test_a_folder_of_classes_is_input_with_labels(shapes: Path, pocket: Backbone) -> None:
    read = load_input(shapes, pocket)
    assert read.paths == tuple(str(shapes / name) for name in SHAPES)
    assert read.labels is not None and read.labels.tolist() == [0] * 4 + [1] * 4
    assert (read.class_names, read.backbone) == (("circle", "square"), pocket.fingerprint)
    assert read.precision == "float32"
    raw = pocket.encode_images([load_image(path) for path in read.paths or ()])
    torch.testing.assert_close(read.features * read.norms[:, None], raw, rtol=1e-4, atol=1e-5)


def test_one_picture_is_input(shapes: Path, pocket: Backbone) -> None:
    path = shapes / "circle" / "0.png"
    read = load_input(path, pocket)
    assert (len(read), read.paths, read.labels) == (1, (str(path),), None)


def test_skipped_pictures_leave_paths_and_labels_in_step(shapes: Path, pocket: Backbone) -> None:
    (shapes / "circle" / "1.png").write_bytes(b"broken")
    read = load_input(shapes, pocket, skip_broken=True)
    assert read.paths == tuple(str(shapes / name) for name in SHAPES if name != "circle/1.png")
    assert read.labels is not None and read.labels.tolist() == [0] * 3 + [1] * 4
    assert len(read.notes) == 1


def test_input_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("gone.npz", "gone.png", "gone"):
        with pytest.raises(UserError, match=f"{name}: no such file"):
            load_input(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")
    with pytest.raises(UserError, match=r"notes\.md: no picture"):
        load_input(tmp_path / "notes.md")


def test_outside_features_take_the_place_of_the_tasks_own(
    feature_task: tuple[Task, Path], tmp_path: Path
) -> None:
    outside = make_feature_file(5.0 * np.eye(3), backbone="1" * 16)
    save_feature_file(outside, tmp_path / "outside.npz")
    task = load_task(feature_task[1], ood=tmp_path / "outside.npz")
    assert task.ood_features is not None and torch.equal(task.ood_features, torch.eye(3))
    assert task.ood_norms is not None and torch.equal(task.ood_norms, torch.full((3,), 5.0))


@pytest.mark.parametrize(
    "dimension, backbone, message",
    [
        (3, "2" * 16, f"come from backbone {'2' * 16}, the task's from {'1' * 16}"),
        (4, None, "have 4 columns, the task's 3"),
    ],
)
def test_outside_features_of_another_encoder_are_refused(
    dimension: int, backbone: str | None, message: str, feature_task: tuple[Task, Path]
) -> None:
    outside = make_feature_file(np.eye(dimension), backbone=backbone)
    with pytest.raises(UserError, match=message):
        with_ood(feature_task[0], outside)


def test_a_partial_folder_is_a_task_without_queries(save_pictures: SavePictures, pocket: Backbone) -> None:
    task = load_task(save_pictures("circle/0.png", "circle/1.png"), pocket, partial=True)
    assert task.is_partial and task.class_names == ("circle",) and task.support_labels.tolist() == [0, 0]
    assert len(task.query_labels) == 0 and task.backbone == pocket.fingerprint
    assert torch.equal(task.text_features, pocket.text_features(["circle"]))  # type: ignore[arg-type]
