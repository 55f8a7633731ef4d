"""Rendered textures of two colours: stripes, checks, dots and their like, with nothing drawn on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bayes_clip.data.rendered_shapes import COLOURS, IMAGE_SIZE, contrasting_colour, jittered_colour

TEXTURES = (
    "horizontal stripes", "vertical stripes", "diagonal stripes", "checkerboard", "dots",
    "grid", "waves", "rings", "noise", "gradient", "blobs", "plain",
)  # fmt: skip


@dataclass(frozen=True)
class TexturePicture:
    """One rendered texture: the (32, 32, 3) uint8 picture and what is true of it."""

    image: np.ndarray
    texture: str
    first: str  # the two colours' names; the same one twice for "plain"
    second: str
    period: float  # pixels


def _smooth_noise(rng: np.random.Generator, period: float) -> np.ndarray:
    cells = max(2, round(IMAGE_SIZE / period))
    coarse = np.kron(rng.uniform(-1.0, 1.0, (cells + 1, cells + 1)), np.ones((IMAGE_SIZE // cells + 1,) * 2))
    kernel = np.ones(IMAGE_SIZE // cells) / (IMAGE_SIZE // cells)
    blurred = np.apply_along_axis(np.convolve, 0, coarse, kernel, mode="same")
    blurred = np.apply_along_axis(np.convolve, 1, blurred, kernel, mode="same")
    return blurred[:IMAGE_SIZE, :IMAGE_SIZE]


def _pattern(texture: str, period: float, rng: np.random.Generator) -> np.ndarray:
    """Share (32, 32) in 0..1 of the second colour."""
    rows, columns = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(float)
    x = 2.0 * np.pi * (columns / period + rng.uniform())
    y = 2.0 * np.pi * (rows / period + rng.uniform())
    if texture == "noise":
        return rng.uniform(0.0, 1.0, rows.shape)
    if texture == "plain":
        return np.zeros_like(rows)
    if texture == "gradient":
        angle = rng.uniform(0.0, 2.0 * np.pi)
        ramp = np.cos(angle) * columns + np.sin(angle) * rows
        return (ramp - ramp.min()) / (ramp.max() - ramp.min())
    if texture == "rings":
        centre = rng.uniform(10.0, 22.0, 2)
        y = 2.0 * np.pi * np.hypot(rows - centre[0], columns - centre[1]) / period
    slant = rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.4)
    waves: dict[str, np.ndarray] = {
        "horizontal stripes": np.sin(y),
        "vertical stripes": np.sin(x),
        "diagonal stripes": np.sin(x + slant * y),
        "checkerboard": np.sin(x) * np.sin(y),
        "dots": np.sin(x) + np.sin(y) - 1.0,
        "grid": np.maximum(np.sin(x), np.sin(y)) - 0.75,
        "waves": np.sin(y + 1.3 * np.sin(0.7 * x)),
        "rings": np.sin(y),
        "blobs": _smooth_noise(rng, period),
    }
    return np.clip(0.5 + 3.0 * waves[texture], 0.0, 1.0)


def render_texture(texture: str, rng: np.random.Generator) -> TexturePicture:
    """One picture of a texture from TEXTURES in two random colours that can be told apart."""
    first = str(rng.choice(list(COLOURS)))
    second = first if texture == "plain" else contrasting_colour(first, rng)
    period = rng.uniform(5.0, 14.0)
    share = _pattern(texture, period, rng)[..., None]
    picture = jittered_colour(first, rng) * (1.0 - share) + jittered_colour(second, rng) * share
    picture += rng.normal(0.0, rng.uniform(0.0, 8.0), picture.shape)
    image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return TexturePicture(image, texture, first, second, period)
