"""Corruptions: shapes, more damage with more severity, the same at every call, and refusals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bayes_clip.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted, corrupted_pictures
from bayes_clip.data.digit_images import digit_images
from bayes_clip.data.rows import Pictures
from bayes_clip.errors import UserError


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return digit_images()[0][:12]


def damage(digits: np.ndarray, name: str, severity: int) -> float:
    """Mean absolute change of a pixel."""
    changed = [
        np.asarray(corrupted(Image.fromarray(each), name, severity, (0, number)), dtype=float)
        for number, each in enumerate(digits)
    ]
    return float(np.abs(np.stack(changed) - digits).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severity_is_more_damage(digits: np.ndarray, name: str) -> None:
    damages = [damage(digits, name, severity) for severity in SEVERITIES]
    assert damages[0] > 0.5
    assert all(later > earlier for earlier, later in pairwise(damages)), damages


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(max_examples=8, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    severity=st.sampled_from(SEVERITIES),
    seed=st.integers(0, 2**32),
    mode=st.sampled_from(["RGB", "L", "RGBA"]),
)
def test_any_picture_keeps_its_size_and_is_the_same_again(
    name: str, width: int, height: int, severity: int, seed: int, mode: str
) -> None:
    image = Image.effect_noise((width, height), 80).convert(mode)
    before = image.tobytes()
    once, again = (corrupted(image, name, severity, seed) for _ in range(2))
    assert once.size == (width, height) and once.mode == "RGB"
    assert once.tobytes() == again.tobytes()
    assert image.tobytes() == before


def test_inversion_ends_in_the_negative_and_flat_pictures_stay_flat(digits: np.ndarray) -> None:
    image = Image.fromarray(digits[0])
    assert (np.asarray(corrupted(image, "inversion", 5)) == 255 - digits[0]).all()
    flat = Image.new("RGB", (20, 10), (10, 200, 90))
    for name in ("blur", "rotation"):
        assert np.abs(np.asarray(corrupted(flat, name, 3)).astype(int) - np.asarray(flat)).max() <= 1
    grey = np.asarray(corrupted(Image.linear_gradient("L"), "contrast", 2)).astype(float)
    assert np.ptp(grey) == pytest.approx(0.5 * 255, abs=1)
    brighter = np.asarray(corrupted(flat, "brightness", 1)).astype(int) - np.asarray(flat)
    assert (brighter == round(0.12 * 255)).all()


def test_patches_are_nested_and_cover_the_share_they_say() -> None:
    white = Image.new("RGB", (100, 50), "white")
    for seed in range(20):
        covered = [
            np.asarray(corrupted(white, "occlusion", level, seed))[..., 0] == 128 for level in SEVERITIES
        ]
        shares = [round(each.mean(), 3) for each in covered]
        assert all((small <= large).all() for small, large in pairwise(covered))
        for share, side in zip(shares, CORRUPTIONS["occlusion"].strengths, strict=True):
            assert share == pytest.approx(round(side * 100) * round(side * 50) / 5000)


def test_noise_is_as_wide_as_it_says_and_differs_between_pictures() -> None:
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    pictures = corrupted_pictures(Pictures(lambda number: grey, (0, 1, 5)), "noise", 2, seed=3)
    first, second, _ = (np.asarray(picture).astype(float) for picture in pictures)
    assert (first - 128).std() == pytest.approx(0.1 * 255, rel=0.03)
    assert np.abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    picked = corrupted_pictures(Pictures(lambda number: grey, (1,)), "noise", 2, seed=3)
    assert (np.asarray(next(iter(picked))) == second).all()  # whatever the others are
    assert pictures.pick(torch.tensor([1])).numbers == (1,)


def test_either_way_of_turning_is_taken(digits: np.ndarray) -> None:
    image = Image.fromarray(digits[3])
    assert len({corrupted(image, "rotation", 4, seed).tobytes() for seed in range(12)}) == 2


def test_refusals_say_what_there_is() -> None:
    image = Image.new("RGB", (4, 4))
    with pytest.raises(UserError, match=r"corruption 'blurr'.*Did you mean.*blur"):
        corrupted(image, "blurr", 1)
    for severity in (0, 6):
        with pytest.raises(UserError, match=f"severity {severity}"):
            corrupted(image, "blur", severity)
    with pytest.raises(UserError, match="no such corruption"):
        corrupted_pictures(Pictures(lambda number: image, (0,)), "fog", 1)
    pixels = corrupted_pictures(Pictures(lambda number: torch.zeros(3, 4, 4), (7,)), "blur", 1)
    with pytest.raises(UserError, match="picture 7 is a tensor"):
        list(pixels)
