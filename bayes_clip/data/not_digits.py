"""Pictures that show no digit: the out-of-distribution set of the built-in digit tasks."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from bayes_clip.data.rendered_shapes import COLOURS, IMAGE_SIZE, SHAPES, render_shape
from bayes_clip.data.rendered_textures import TEXTURES, render_texture
from bayes_clip.errors import UserError

PLAIN_SHAPES = tuple(shape for shape in SHAPES if shape != "ring")  # a ring may well be a zero
PATCH_SIDES = (32, 160)  # pixels of a photograph that become one picture


def _photo_patch(photographs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    photograph = photographs[int(rng.integers(len(photographs)))]
    side = int(rng.integers(PATCH_SIDES[0], PATCH_SIDES[1] + 1))
    top = int(rng.integers(photograph.shape[0] - side + 1))
    left = int(rng.integers(photograph.shape[1] - side + 1))
    patch = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(patch.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Uniform noise in blocks of 1, 2 or 4 pixels, grey or coloured."""
    block = int(rng.choice([1, 2, 4]))
    channels = int(rng.choice([1, 3]))
    coarse = rng.integers(0, 256, (IMAGE_SIZE // block, IMAGE_SIZE // block, channels))
    fine = coarse.repeat(block, axis=0).repeat(block, axis=1)
    return np.broadcast_to(fine, (IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)


def not_digits(count: int, seed: int) -> np.ndarray:
    """`count` pictures (count, 32, 32, 3) uint8 without a digit: shapes, textures, photographs, noise.

    The photographs are patches of the two that scikit-learn ships (`load_sample_images`).
    """
    if count < 1:
        raise UserError(f"{count} out-of-distribution pictures asked for; ask for at least 1")
    rng = np.random.default_rng(seed)
    photographs = [np.asarray(image) for image in load_sample_images().images]
    colours, pictures = tuple(COLOURS), []
    for index in range(count):
        if index % 4 == 0:
            pictures.append(render_shape(str(rng.choice(PLAIN_SHAPES)), str(rng.choice(colours)), rng).image)
        elif index % 4 == 1:
            pictures.append(render_texture(str(rng.choice(TEXTURES)), rng).image)
        elif index % 4 == 2:
            pictures.append(_photo_patch(photographs, rng))
        else:
            pictures.append(_noise(rng))
    return np.stack(pictures)
