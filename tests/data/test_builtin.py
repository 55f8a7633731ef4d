from __future__ import annotations

import numpy as np
import pytest
import torch

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.builtin import TASKS, builtin_task, digit_pool
from bayes_clip.data.digit_images import digit_images
from bayes_clip.data.task import Task

DIGITS = ("digits", "digits_rotated", "digits_mirrored")


@pytest.fixture(scope="module")
def tasks(pocket: Backbone) -> dict[str, Task]:
    return {name: builtin_task(name, pocket) for name in TASKS}


def test_the_pool_has_forty_digits_of_each_class() -> None:
    _, labels = digit_images("upright")
    pool = digit_pool(labels)
    assert np.bincount(labels[pool]).tolist() == [40] * 10
    assert np.array_equal(pool, digit_pool(labels))


def test_all_digits_are_used_once(tasks: dict[str, Task]) -> None:
    for name in DIGITS:
        task = tasks[name]
        assert (len(task.support_labels), len(task.query_labels)) == (400, 1397)
        assert torch.equal(task.query_labels, tasks["digits"].query_labels)


def test_no_query_digit_is_among_the_support(tasks: dict[str, Task]) -> None:
    task = tasks["digits"]
    distances = torch.cdist(task.query_features.double(), task.support_features.double())
    assert distances.min() > 1e-6


def test_variants_show_the_same_digits_another_way(tasks: dict[str, Task]) -> None:
    upright, rotated, mirrored = (tasks[name].query_images for name in DIGITS)
    assert upright is not None and rotated is not None and mirrored is not None
    assert upright.shape == (1397, 3, 32, 32) and upright.dtype == torch.uint8
    assert torch.equal(rotated, upright.rot90(dims=(2, 3)))
    assert torch.equal(mirrored, upright.flip(3))


def test_tasks_carry_what_the_report_and_the_posterior_need(tasks: dict[str, Task], pocket: Backbone) -> None:
    for name, task in tasks.items():
        assert task.name == name
        assert task.backbone == pocket.fingerprint
        assert task.logit_scale == pocket.logit_scale
        assert task.text_features is not None and task.support_norms is not None
        assert task.query_images is not None and len(task.query_images) == len(task.query_labels)
        assert task.notes == ()


def test_digit_tasks_have_pictures_of_no_digit(tasks: dict[str, Task]) -> None:
    for name in DIGITS:
        outside = tasks[name].ood_features
        assert outside is not None and outside.shape == (600, 128)


def test_shapes_are_the_held_out_combinations(tasks: dict[str, Task]) -> None:
    task = tasks["shapes"]
    assert task.num_classes == 24
    assert len(task.query_labels) == 1008
    assert "red circle" in task.class_names


def test_templates_change_the_text_features_alone(tasks: dict[str, Task], pocket: Backbone) -> None:
    other = builtin_task("shapes", pocket, ["a small {}"])
    assert torch.equal(other.query_features, tasks["shapes"].query_features)
    assert not torch.equal(other.text_features, tasks["shapes"].text_features)  # type: ignore[arg-type]
