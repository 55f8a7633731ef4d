"""Rendered pictures of coloured shapes, and the built-in task `shapes` made of combinations never trained on.

Every picture is a function of a numpy random generator alone, so a seed fixes it. The script that pretrained
pocket_clip draws its shapes with these same functions and never the pairs in HELD_OUT_COMBINATIONS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from bayes_clip.errors import UserError

IMAGE_SIZE = 32
SUPERSAMPLING = 3
MINIMUM_CONTRAST = 110.0  # Euclidean distance in RGB between a shape and what lies behind it

SHAPES = (
    "circle", "square", "triangle", "rectangle", "star", "cross",
    "ring", "heart", "diamond", "crescent", "hexagon", "arrow",
)  # fmt: skip
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (40, 165, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 225, 50),
    "orange": (245, 135, 25),
    "purple": (125, 45, 165),
    "pink": (250, 150, 195),
    "brown": (125, 75, 35),
    "gray": (128, 128, 128),
    "white": (245, 245, 245),
    "black": (12, 12, 12),
    "cyan": (50, 215, 220),
}
# Two colours of every shape, spread so that each colour is held out twice as well.
HELD_OUT_COMBINATIONS: tuple[tuple[str, str], ...] = tuple(
    (shape, tuple(COLOURS)[(index * 5 + offset) % len(COLOURS)])
    for index, shape in enumerate(SHAPES)
    for offset in (0, 7)
)


@dataclass(frozen=True)
class ShapePicture:
    """One rendered shape: the (32, 32, 3) uint8 picture and what is true of it."""

    image: np.ndarray
    shape: str
    colour: str
    background: str  # name of the background's colour
    ground: str  # "plain", "gradient", "noisy" or "striped"
    size: float  # the shape's radius as a share of half the frame
    centre: tuple[float, float]  # in shares of the frame, x to the right and y down


@dataclass(frozen=True)
class ShapesTask:
    """Pictures (N, 32, 32, 3) uint8 and int64 labels of the task `shapes`; classes read "red triangle"."""

    support_images: np.ndarray
    support_labels: np.ndarray
    query_images: np.ndarray
    query_labels: np.ndarray
    class_names: tuple[str, ...]


def jittered_colour(name: str, rng: np.random.Generator, spread: float = 14.0) -> np.ndarray:
    """A colour (3,) float64 in 0..255 near the one that bears this name."""
    return np.clip(np.asarray(COLOURS[name]) + rng.normal(0.0, spread, 3), 0.0, 255.0)


def contrasting_colour(name: str, rng: np.random.Generator) -> str:
    """The name of a random colour that can be told from `name`."""
    reference = np.asarray(COLOURS[name], dtype=float)
    far = [other for other, rgb in COLOURS.items() if np.linalg.norm(reference - rgb) > MINIMUM_CONTRAST]
    return far[int(rng.integers(len(far)))]


def _regular(corners: int, start: float, radii: tuple[float, ...] = (1.0,)) -> np.ndarray:
    angles = np.deg2rad(start) + 2.0 * np.pi * np.arange(corners) / corners
    lengths = np.resize(np.asarray(radii), corners)
    return np.stack([np.cos(angles) * lengths, np.sin(angles) * lengths], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0.0, 2.0 * np.pi, 40, endpoint=False)
    x = 16.0 * np.sin(t) ** 3
    y = -(13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], axis=1) / 15.5


def _crescent() -> np.ndarray:
    outer = np.deg2rad(np.linspace(50.0, 310.0, 30))
    inner = np.deg2rad(np.linspace(292.0, 68.0, 30))
    outside = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    hollow = np.stack([0.42 + 0.82 * np.cos(inner), 0.82 * np.sin(inner)], axis=1)
    return np.concatenate([outside, hollow]) + np.array([0.15, 0.0])


OUTLINES: dict[str, np.ndarray] = {
    "circle": _regular(40, 0.0),
    "square": _regular(4, 45.0, (1.15,)),
    "triangle": _regular(3, -90.0, (1.1,)) + np.array([0.0, 0.2]),
    "rectangle": np.array([(-1.05, -0.5), (1.05, -0.5), (1.05, 0.5), (-1.05, 0.5)]),
    "star": _regular(10, -90.0, (1.12, 0.46)),
    "cross": np.array(
        [(-1, -0.33), (-0.33, -0.33), (-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33),
         (1, 0.33), (0.33, 0.33), (0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33)]
    ),
    "ring": _regular(40, 0.0),
    "heart": _heart(),
    "diamond": np.array([(0, -1.15), (0.8, 0), (0, 1.15), (-0.8, 0)]),
    "crescent": _crescent(),
    "hexagon": _regular(6, 0.0),
    "arrow": np.array([(-1, -0.28), (0.1, -0.28), (0.1, -0.8), (1.05, 0), (0.1, 0.8), (0.1, 0.28),
                      (-1, 0.28)]),
}  # fmt: skip


def shape_mask(
    shape: str, rng: np.random.Generator, radius: float, centre: tuple[float, float], turn: float = 12.0
) -> np.ndarray:
    """Coverage (32, 32) float64 in 0..1 of one shape; `radius` and `centre` in shares of the frame."""
    angle = np.deg2rad(rng.uniform(-turn, turn))
    stretch = rng.uniform(0.92, 1.08, 2)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    side = IMAGE_SIZE * SUPERSAMPLING
    points = (OUTLINES[shape] * stretch) @ rotation * radius * side + np.asarray(centre) * side
    canvas = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    draw.polygon([tuple(point) for point in points], fill=255)
    if shape == "ring":
        hole = (points - points.mean(axis=0)) * rng.uniform(0.48, 0.64) + points.mean(axis=0)
        draw.polygon([tuple(point) for point in hole], fill=0)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255.0


def render_ground(colour: np.ndarray, ground: str, rng: np.random.Generator) -> np.ndarray:
    """A background (32, 32, 3) float64 around one colour (3,)."""
    picture = np.broadcast_to(colour, (IMAGE_SIZE, IMAGE_SIZE, 3)).copy()
    rows, columns = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / (IMAGE_SIZE - 1.0) - 0.5
    angle = rng.uniform(0.0, 2.0 * np.pi)
    ramp = np.cos(angle) * columns + np.sin(angle) * rows
    if ground == "gradient":
        picture += (rng.uniform(30.0, 70.0) * ramp)[..., None]
    elif ground == "striped":
        picture += (rng.uniform(10.0, 24.0) * np.sign(np.sin(ramp * rng.uniform(15.0, 40.0))))[..., None]
    elif ground == "noisy":
        picture += rng.normal(0.0, rng.uniform(8.0, 22.0), picture.shape)
    return picture


def render_shape(shape: str, colour: str, rng: np.random.Generator) -> ShapePicture:
    """One picture of a shape in a colour on a background that it can be told from."""
    for name, known in ((shape, SHAPES), (colour, tuple(COLOURS))):
        if name not in known:
            raise UserError(f"unknown shape or colour '{name}'; known: {', '.join(known)}")
    background = contrasting_colour(colour, rng)
    ground = str(rng.choice(["plain", "gradient", "noisy", "striped"], p=[0.55, 0.15, 0.15, 0.15]))
    radius = rng.uniform(0.2, 0.42)
    centre = (rng.uniform(radius + 0.04, 0.96 - radius), rng.uniform(radius + 0.04, 0.96 - radius))
    mask = shape_mask(shape, rng, radius, centre)[..., None]
    picture = render_ground(jittered_colour(background, rng), ground, rng) * (1.0 - mask)
    picture += jittered_colour(colour, rng) * mask
    image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return ShapePicture(image, shape, colour, background, ground, 2.0 * radius, centre)


def render_shapes(
    combinations: tuple[tuple[str, str], ...], count_each: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`count_each` pictures of every (shape, colour), mixed: (N, 32, 32, 3) uint8, and labels (N,) int64."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(combinations)), count_each))
    pairs = [combinations[label] for label in labels]
    images = np.stack([render_shape(shape, colour, rng).image for shape, colour in pairs])
    return images, labels.astype(np.int64)


def render_shapes_task(support_each: int = 16, query_each: int = 42, seed: int = 0) -> ShapesTask:
    """The task `shapes`: the 24 held-out combinations, 384 support and 1,008 query pictures by default."""
    support_images, support_labels = render_shapes(HELD_OUT_COMBINATIONS, support_each, seed=2 * seed)
    query_images, query_labels = render_shapes(HELD_OUT_COMBINATIONS, query_each, seed=2 * seed + 1)
    names = tuple(f"{colour} {shape}" for shape, colour in HELD_OUT_COMBINATIONS)
    return ShapesTask(support_images, support_labels, query_images, query_labels, names)
