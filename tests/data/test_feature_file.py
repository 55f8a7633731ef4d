from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bayes_clip.data.feature_file import (
    load_feature_file,
    load_feature_task,
    make_feature_file,
    save_feature_file,
    save_feature_task,
)
from bayes_clip.data.task import make_task
from bayes_clip.errors import UserError

SUFFIXES = pytest.mark.parametrize("suffix", ["npz", "safetensors"])


def raw_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "support_features": random.normal(size=(4, 3)).astype(np.float16),
        "support_labels": np.array([0, 0, 1, 1]),
        "query_features": random.normal(size=(2, 3)),
        "query_labels": np.array([1, 0], dtype=np.uint8),
    }


def saved_npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_a_bare_npz_task_is_read(tmp_path: Path) -> None:
    task = load_feature_task(saved_npz(tmp_path / "pets.npz", **raw_arrays()))
    assert (task.name, task.class_names, task.logit_scale) == ("pets", ("class 0", "class 1"), 100.0)
    assert task.text_features is None and task.ood_features is None and task.backbone is None
    assert task.query_labels.tolist() == [1, 0]
    assert task.support_features.dtype == torch.float32


def test_a_full_npz_task_is_read(tmp_path: Path) -> None:
    extra = {
        "text_features": np.eye(3)[:2],
        "class_names": np.array(["cat", "sea otter"]),
        "logit_scale": np.float32(14.5),
        "ood_features": np.ones((5, 3), np.float32),
        "comment": np.array("where it came from"),
    }
    task = load_feature_task(saved_npz(tmp_path / "pets.npz", **raw_arrays(), **extra))
    assert task.class_names == ("cat", "sea otter")
    assert task.logit_scale == 14.5
    assert task.ood_features is not None and task.ood_features.shape == (5, 3)
    assert task.notes == ("pets.npz: comment not used",)


def test_safetensors_class_names_stand_in_the_metadata(tmp_path: Path) -> None:
    tensors = {key: torch.from_numpy(value) for key, value in raw_arrays().items()}
    metadata = {"class_names": '["cat", "Ötter"]', "about": "anything"}
    save_file(tensors, tmp_path / "pets.safetensors", metadata)
    task = load_feature_task(tmp_path / "pets.safetensors")
    assert task.class_names == ("cat", "Ötter")
    assert task.notes == ()


@SUFFIXES
def test_a_task_survives_the_file(suffix: str, tmp_path: Path) -> None:
    task = make_task(
        "pets",
        **raw_arrays(),
        class_names=["cat", "Ötter"],
        text_features=np.eye(3)[:2],
        ood_features=7.0 * np.ones((5, 3)),
        logit_scale=14.5,
        backbone="0123456789abcdef",
    )
    path = tmp_path / f"pets.{suffix}"
    save_feature_task(task, path)
    again = load_feature_task(path)
    assert (again.class_names, again.logit_scale, again.backbone) == (task.class_names, 14.5, task.backbone)
    for name in ("support_labels", "query_labels"):
        assert torch.equal(getattr(again, name), getattr(task, name))
    for name in ("support_features", "query_features", "ood_features", "text_features", "ood_norms"):
        torch.testing.assert_close(getattr(again, name), getattr(task, name), rtol=1e-6, atol=1e-6)


@SUFFIXES
def test_a_feature_file_survives_the_file(suffix: str, tmp_path: Path) -> None:
    written = make_feature_file(
        3.0 * np.eye(4),
        paths=["a.png", "b c.png", "ü.png", "d.png"],
        labels=[0, 1, 1, 0],
        class_names=["cat", "dog"],
        backbone="0123456789abcdef",
        precision="float16",
    )
    path = tmp_path / f"pictures.{suffix}"
    save_feature_file(written, path)
    read = load_feature_file(path)
    assert (read.paths, read.class_names, read.backbone) == (
        written.paths,
        written.class_names,
        written.backbone,
    )
    assert read.precision == "float16"
    assert torch.equal(read.features, torch.eye(4)) and torch.equal(read.norms, 3.0 * torch.ones(4))
    assert read.labels is not None and read.labels.tolist() == [0, 1, 1, 0]
    assert len(read) == 4
    assert repr(read) == "FeatureFile(4 rows, 4 features, labelled, backbone=0123456789abcdef)"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_feature_file_needs_no_more_than_features(tmp_path: Path) -> None:
    read = load_feature_file(saved_npz(tmp_path / "pictures.npz", features=np.eye(3)))
    assert (read.paths, read.labels, read.class_names, read.backbone) == (None, None, None, None)
    assert read.precision is None


def test_of_a_task_the_query_side_is_input(tmp_path: Path) -> None:
    path = saved_npz(tmp_path / "pets.npz", **raw_arrays())
    read = load_feature_file(path)
    assert torch.equal(read.features, load_feature_task(path).query_features)
    assert read.labels is not None and read.labels.tolist() == [1, 0]


def test_pickled_names_are_refused_with_the_remedy(tmp_path: Path) -> None:
    names = np.array(["cat", "dog"], dtype=object)
    path = saved_npz(tmp_path / "pets.npz", **raw_arrays(), class_names=names)
    with pytest.raises(UserError, match=r"pets\.npz: class_names is an array of Python objects.*dtype=str"):
        load_feature_task(path)


def test_missing_arrays_are_listed(tmp_path: Path) -> None:
    arrays = raw_arrays()
    del arrays["query_labels"], arrays["support_labels"]
    with pytest.raises(UserError, match="support_labels, query_labels missing; a feature task holds"):
        load_feature_task(saved_npz(tmp_path / "pets.npz", **arrays))


def test_tasks_and_feature_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a feature file, not a task"):
        load_feature_task(saved_npz(tmp_path / "pictures.npz", features=np.eye(3)))
    with pytest.raises(UserError, match="no features in it"):
        load_feature_file(saved_npz(tmp_path / "other.npz", numbers=np.eye(3)))


@SUFFIXES
@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 half an archive"])
def test_damaged_files_are_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"pets.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"pets\.{suffix}: damaged or not a") as refusal:
        load_feature_task(path)
    assert "\n" not in str(refusal.value)


def test_truncated_archives_are_named(tmp_path: Path) -> None:
    path = saved_npz(tmp_path / "pets.npz", **raw_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"pets\.npz: damaged"):
        load_feature_task(path)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = saved_npz(tmp_path / "pets.npz", **raw_arrays())
    whole = bytearray(path.read_bytes())
    whole[140] ^= 0xFF  # inside the data of the first member: its checksum no longer holds
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"pets\.npz: damaged.*at support_features"):
        load_feature_task(path)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "array.npz").open("wb") as stream:
        np.save(stream, np.eye(3))
    with pytest.raises(UserError, match=r"not a \.npz archive"):
        load_feature_task(tmp_path / "array.npz")


def test_other_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.npz: no such file"):
        load_feature_task(tmp_path / "gone.npz")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt: not a feature file"):
        load_feature_task(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"labels": [0, 1]}, "labels has 2 entries for 3"),
        ({"labels": [0, 1, 2], "class_names": ["a", "b"]}, r"labels row 2 \(2\).*0 to 1"),
        ({"paths": ["a"]}, "paths has 1 entries for 3"),
        ({"features": np.zeros((3, 3))}, r"features row 0 \(and 2 more\) is all zeros"),
    ],
)
def test_feature_files_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    arrays: dict[str, Any] = {"features": np.eye(3)} | changed
    with pytest.raises(UserError, match=message):
        make_feature_file(**arrays, source="pictures.npz")


def test_a_backbone_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="backbone is no text"):
        load_feature_file(saved_npz(tmp_path / "pictures.npz", features=np.eye(3), backbone=np.arange(2)))


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "pictures.npz"
    old.write_bytes(b"what was there before")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(UserError, match=r"pictures\.npz: cannot write \(No space left"):
        save_feature_file(make_feature_file(np.eye(3)), old)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pictures.npz"]
    assert old.read_bytes() == b"what was there before"


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    features = make_feature_file(np.eye(3))
    with pytest.raises(UserError, match=r"cannot write there"):
        save_feature_file(features, tmp_path / "gone" / "pictures.npz")
    with pytest.raises(UserError, match=r"unknown suffix '\.csv'"):
        save_feature_file(features, tmp_path / "pictures.csv")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(UserError, match="a folder, not a file"):
        save_feature_file(features, tmp_path / "folder.npz")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.npz"]


def test_written_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    save_feature_file(make_feature_file(np.eye(3)), tmp_path / "pictures.npz")
    assert os.stat(tmp_path / "pictures.npz").st_mode == os.stat(tmp_path / "ordinary").st_mode


@SUFFIXES
def test_a_partial_task_is_read_without_queries(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"more.{suffix}"
    save_feature_task(
        make_task("more", np.eye(3)[:2], [1, 1], class_names=["cat", "owl"], partial=True), path
    )
    with pytest.raises(UserError, match="query_features, query_labels missing"):
        load_feature_task(path)
    task = load_feature_task(path, partial=True)
    assert task.is_partial and task.support_labels.tolist() == [1, 1] and task.notes == ()
    whole = saved_npz(tmp_path / "whole.npz", **raw_arrays())
    assert len(load_feature_task(whole, partial=True).query_labels) == 2


def test_a_labelled_feature_file_is_a_partial_task(tmp_path: Path) -> None:
    path = tmp_path / "more.npz"
    known = {
        "paths": ["a.png", "b.png"],
        "labels": [1, 1],
        "class_names": ["cat", "owl"],
        "backbone": "1" * 16,
        "precision": "float32",
    }
    save_feature_file(make_feature_file(np.eye(3)[:2], **known), path)
    task = load_feature_task(path, partial=True)
    assert (task.class_names, task.support_labels.tolist()) == (("cat", "owl"), [1, 1])
    assert task.backbone == "1" * 16 and task.notes == ()
    with pytest.raises(UserError, match="a feature file, not a task"):
        load_feature_task(path)
    save_feature_file(make_feature_file(np.eye(3)), path)
    with pytest.raises(UserError, match="a feature file without labels; a task holds"):
        load_feature_task(path, partial=True)
