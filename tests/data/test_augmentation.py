from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image

from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.data.augmentation import augmented_pictures, augmented_rows
from bayes_clip.data.rows import Pictures, Rows

SIZE = (24, 32)


def noise(index: int) -> Image.Image:
    pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ramp(index: int) -> Image.Image:
    """Dark on the left, bright on the right."""
    return Image.fromarray(np.tile(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], (40, 1, 3)))


def pictures(read: object = noise, count: int = 6, mirrors: bool = True) -> Pictures:
    return Pictures(read, tuple(range(count)), mirrors)  # type: ignore[arg-type]


def as_arrays(views: Pictures) -> np.ndarray:
    return np.stack([np.asarray(view) for view in views])


def slopes(views: Pictures) -> np.ndarray:
    """Brightness of the right half of each view less that of its left half."""
    levels = as_arrays(views).astype(float).mean((1, 3))
    return levels[:, levels.shape[1] // 2 :].mean(1) - levels[:, : levels.shape[1] // 2].mean(1)


def test_views_have_the_encoders_size_and_are_one_for_each_picture() -> None:
    views = augmented_pictures(pictures(), SIZE, seed=0, draw=0)
    assert as_arrays(views).shape == (6, *SIZE, 3)
    assert len(views) == 6


def test_a_seed_and_a_draw_name_a_view() -> None:
    first = as_arrays(augmented_pictures(pictures(), SIZE, seed=0, draw=0))
    assert np.array_equal(first, as_arrays(augmented_pictures(pictures(), SIZE, seed=0, draw=0)))
    for seed, draw in ((0, 1), (1, 0), (1, 1)):
        assert not np.array_equal(first, as_arrays(augmented_pictures(pictures(), SIZE, seed, draw)))


def test_the_callers_random_numbers_stay_where_they_were() -> None:
    torch.manual_seed(7)
    random.seed(7)
    states = torch.get_rng_state(), random.getstate()
    augmented_pictures(pictures(), SIZE, seed=0, draw=0)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_half_the_views_are_mirrored_and_none_of_what_does_not_mirror() -> None:
    mirrored = slopes(augmented_pictures(pictures(ramp, 60), SIZE, 0, 0)) < 0
    assert 15 <= mirrored.sum() <= 45
    assert (slopes(augmented_pictures(pictures(ramp, 60, mirrors=False), SIZE, 0, 0)) > 0).all()


def test_crops_keep_at_least_the_share_asked_for() -> None:
    """A crop of the ramp keeps a share of its brightness range; wide ones keep more."""
    ranges = {}
    for smallest in (0.08, 0.9):
        views = as_arrays(augmented_pictures(pictures(ramp, 40), (40, 40), 0, 0, smallest)).astype(float)
        levels = views.mean((1, 3))
        ranges[smallest] = levels.max(1) - levels.min(1)
    assert ranges[0.08].min() < 0.5 * 234 and ranges[0.9].min() > 0.8 * 234


def test_pictures_given_as_tensors_are_cropped_too() -> None:
    raw = torch.from_numpy(np.asarray(noise(0)).copy()).permute(2, 0, 1)
    (view,) = augmented_pictures(pictures(lambda index: raw, 1), SIZE, 0, 0)
    assert isinstance(view, torch.Tensor) and view.dtype == torch.uint8 and view.shape == (3, *SIZE)


def test_a_subset_keeps_what_is_known_of_mirror_images() -> None:
    assert not pictures(mirrors=False).pick(torch.tensor([1, 2])).mirrors


@pytest.fixture(scope="module")
def augmented() -> Rows:
    rows = Rows(torch.zeros(4, 2), None, pictures(count=4))
    return augmented_rows(rows, load_backbone(), seed=0, draw=3)


def test_augmented_rows_are_the_encoders_features_of_the_views(augmented: Rows) -> None:
    encoder = load_backbone()
    views = augmented_pictures(pictures(count=4), encoder.image_size, seed=0, draw=3)
    wanted = encoder.encode_images(list(views))
    assert augmented.norms is not None
    assert torch.allclose(augmented.features * augmented.norms[:, None], wanted, atol=1e-4)
    assert torch.allclose(augmented.features.norm(dim=-1), torch.ones(4), atol=1e-6)
    assert not augmented.features.is_inference(), "a gradient may not pass through such a tensor"
