from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_problems import tiny_task

from bayes_clip import views as views_module
from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.data.augmentation import augmented_rows
from bayes_clip.data.rows import Pictures
from bayes_clip.data.task import Task
from bayes_clip.fitting import fit
from bayes_clip.inputs import task_context
from bayes_clip.model import AdapterModel, find_model
from bayes_clip.recipe import Recipe
from bayes_clip.settings import FitSettings
from bayes_clip.views import KEPT, augmented_views, deviations

RECIPE = Recipe(source="a test", optimizer="sgd", learning_rate=0.1, epochs=30, augmentation=True)


class OfFeatures(AdapterModel):
    recipe = RECIPE


class OfRawFeatures(AdapterModel):
    takes = "raw"
    recipe = RECIPE


class OfPixels(AdapterModel):
    takes = "pixels"
    recipe = RECIPE


class Unaugmented(AdapterModel):
    recipe = replace(RECIPE, augmentation=False)


def noise(index: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def task() -> Task:
    """Four pictures of noise of two classes."""
    encoder = load_backbone()
    flat = tiny_task(classes=2, features=encoder.feature_dim, shots=2)
    return replace(flat, encoder=encoder, support_pictures=Pictures(noise, (0, 1, 2, 3)))


def seen(kind: type[AdapterModel], task: Task, epoch: int, seed: int = 0) -> torch.Tensor:
    views = augmented_views(kind, task_context(kind, task), task, seed)
    assert views is not None
    return views(epoch)


def test_features_seen_are_those_of_the_draw_of_that_epoch(task: Task) -> None:
    for epoch in (0, 1):
        rows = augmented_rows(task.support_rows, task.encoder, seed=0, draw=epoch)
        assert torch.equal(seen(OfFeatures, task, epoch), rows.features)
        raw = rows.features * rows.norms[:, None]
        assert torch.allclose(seen(OfRawFeatures, task, epoch), raw, atol=1e-6)


def test_encoded_views_are_taken_in_turn_and_made_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(views_module, "KEPT", 3)
    original = views_module.augmented_rows
    monkeypatch.setattr(
        views_module, "augmented_rows", lambda *given: made.append(given[3]) or original(*given)
    )
    views = augmented_views(OfFeatures, task_context(OfFeatures, task), task, 0)
    inputs = [views(epoch) for epoch in range(7)]
    assert made == [0, 1, 2]
    assert torch.equal(inputs[1], inputs[4]) and not torch.equal(inputs[1], inputs[2])


def test_pixels_are_fresh_every_epoch(task: Task) -> None:
    first, later = seen(OfPixels, task, 0), seen(OfPixels, task, KEPT)
    assert first.shape == (4, 3 * np.prod(task.encoder.image_size))
    assert not torch.equal(first, later)
    assert torch.equal(first, seen(OfPixels, task, 0))


def test_seeds_see_other_views(task: Task) -> None:
    assert not torch.equal(seen(OfFeatures, task, 0, seed=0), seen(OfFeatures, task, 0, seed=1))


def test_without_pictures_or_augmentation_there_are_none(task: Task) -> None:
    features = tiny_task()
    assert augmented_views(OfFeatures, task_context(OfFeatures, features), features, 0) is None
    assert augmented_views(Unaugmented, task_context(Unaugmented, task), task, 0) is None


def test_deviations_are_told(task: Task) -> None:
    views = augmented_views(OfFeatures, task_context(OfFeatures, task), task, 0)
    assert deviations(OfFeatures, task, views) == (f"{KEPT} random views of each picture, taken in turn",)
    assert deviations(OfFeatures, task, None) == ("one view of each picture, whose features are given",)
    assert deviations(OfPixels, task, views) == ()
    assert deviations(Unaugmented, task, None) == ()
    straight = replace(task, support_pictures=replace(task.support_pictures, mirrors=False))
    assert deviations(OfPixels, straight, views) == ("no mirror images, which would be of another class",)
    assert deviations(Unaugmented, tiny_task(shots=20), None) == ("20 shots trained as long as 16",)


def test_a_fit_trains_on_the_views(task: Task) -> None:
    settings = FitSettings(model="linear_probe", engine="sgd")
    with_views = fit(task, settings)
    without = fit(replace(task, support_pictures=None), settings)
    assert not torch.equal(with_views.posterior.weights.mean, without.posterior.weights.mean)
    assert f"{KEPT} random views" in with_views.notes[0] and "one view" in without.notes[0]
    again = fit(task, settings)
    assert torch.equal(with_views.posterior.weights.mean, again.posterior.weights.mean)
    assert find_model("linear_probe").recipe.augmentation
