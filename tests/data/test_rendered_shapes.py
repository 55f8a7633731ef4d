from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_clip.data.digit_images import digit_images, enlarge_block_counts
from bayes_clip.data.not_digits import not_digits
from bayes_clip.data.rendered_shapes import (
    COLOURS,
    HELD_OUT_COMBINATIONS,
    MINIMUM_CONTRAST,
    SHAPES,
    contrasting_colour,
    render_shape,
    render_shapes_task,
    shape_mask,
)
from bayes_clip.data.rendered_textures import TEXTURES, render_texture
from bayes_clip.errors import UserError


def test_two_colours_of_each_shape_and_two_shapes_of_each_colour_are_held_out() -> None:
    assert len(set(HELD_OUT_COMBINATIONS)) == 2 * len(SHAPES)
    for shape in SHAPES:
        assert sum(pair[0] == shape for pair in HELD_OUT_COMBINATIONS) == 2
    for colour in COLOURS:
        assert sum(pair[1] == colour for pair in HELD_OUT_COMBINATIONS) == 2


def test_task_is_balanced_fixed_by_its_seed_and_its_halves_differ() -> None:
    task, again = render_shapes_task(3, 2, seed=5), render_shapes_task(3, 2, seed=5)
    assert np.array_equal(task.query_images, again.query_images)
    assert np.array_equal(task.support_images, again.support_images)
    assert not np.array_equal(task.support_images[:48], task.query_images)
    assert not np.array_equal(task.query_images, render_shapes_task(3, 2, seed=6).query_images)
    assert task.support_images.shape == (72, 32, 32, 3) and task.support_images.dtype == np.uint8
    assert np.array_equal(np.bincount(task.support_labels), np.full(24, 3))
    assert np.array_equal(np.bincount(task.query_labels), np.full(24, 2))
    shape, colour = HELD_OUT_COMBINATIONS[0]
    assert task.class_names[0] == f"{colour} {shape}"


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SHAPES), st.sampled_from(list(COLOURS)), st.integers(0, 2**31))
def test_shape_stands_inside_the_frame_in_its_colour(shape: str, colour: str, seed: int) -> None:
    picture = render_shape(shape, colour, np.random.default_rng(seed))
    assert np.linalg.norm(np.subtract(COLOURS[colour], COLOURS[picture.background])) > MINIMUM_CONTRAST
    mask = shape_mask(shape, np.random.default_rng(seed), 0.3, (0.5, 0.5))
    assert mask.max() == 1.0
    assert mask[[0, -1]].max() == 0.0 and mask[:, [0, -1]].max() == 0.0
    near = np.linalg.norm(picture.image.astype(float) - COLOURS[colour], axis=-1) < 75.0
    assert near.sum() >= 8


def test_shapes_can_be_told_apart_by_their_masks() -> None:
    masks = {
        shape: shape_mask(shape, np.random.default_rng(0), 0.35, (0.5, 0.5), turn=0.0) for shape in SHAPES
    }
    for first in SHAPES:
        for second in SHAPES:
            overlap = (
                np.minimum(masks[first], masks[second]).sum() / np.maximum(masks[first], masks[second]).sum()
            )
            assert (overlap > 0.9) == (first == second), (first, second)


@given(st.sampled_from(list(COLOURS)), st.integers(0, 1000))
def test_contrasting_colour_is_another(name: str, seed: int) -> None:
    assert contrasting_colour(name, np.random.default_rng(seed)) != name


@pytest.mark.parametrize("texture", TEXTURES)
def test_texture_is_a_function_of_its_seed(texture: str) -> None:
    first = render_texture(texture, np.random.default_rng(3)).image
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, render_texture(texture, np.random.default_rng(3)).image)
    assert not np.array_equal(first, render_texture(texture, np.random.default_rng(4)).image)


def test_not_digits_repeats_with_its_seed_and_varies() -> None:
    images = not_digits(41, seed=2)
    assert images.shape == (41, 32, 32, 3) and images.dtype == np.uint8
    assert np.array_equal(images, not_digits(41, seed=2))
    assert np.array_equal(images[:20], not_digits(20, seed=2))
    assert len({image.tobytes() for image in images}) == 41
    with pytest.raises(UserError, match="at least 1"):
        not_digits(0, seed=0)


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(UserError, match="spiral"):
        render_shape("spiral", "red", np.random.default_rng(0))


def test_digit_variants_are_the_same_digits_turned_and_mirrored() -> None:
    upright, labels = digit_images()
    assert upright.shape == (1797, 32, 32, 3) and upright.dtype == np.uint8 and labels.dtype == np.int64
    assert upright.max() == 255 and upright[:, 0, 0].mean() < 10  # white on black
    assert np.array_equal(np.rot90(upright, axes=(1, 2)), digit_images("rotated")[0])
    assert np.array_equal(upright[:, :, ::-1], digit_images("mirrored")[0])
    with pytest.raises(UserError, match="upside"):
        digit_images("upside")  # type: ignore[arg-type]


def test_enlarging_keeps_flat_pictures_flat() -> None:
    assert np.all(enlarge_block_counts(np.full((8, 8), 16.0)) == 255)
    assert np.all(enlarge_block_counts(np.zeros((16, 16))) == 0)
