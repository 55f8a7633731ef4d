"""One picture of a digit or a letter: hand-like or printed, at a chosen resolution, in chosen colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from bayes_clip.data.digit_images import IMAGE_SIZE, enlarge_block_counts
from bayes_clip.data.rendered_shapes import COLOURS, contrasting_colour, jittered_colour, render_ground

from .distort import random_pose
from .printed import draw_printed
from .skeletons import CAPITALS, DIGITS, LOWERCASE
from .strokes import SIDE, draw_strokes

HAND_SHARE_OF_DIGITS = 0.7
HAND_SHARE_OF_LETTERS = 0.5
RESOLUTIONS, RESOLUTION_SHARES = (8, 16, 32), (0.5, 0.2, 0.3)
# White on black, black on white, any two colours.
INK_SHARES = (0.5, 0.2, 0.3)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class GlyphPicture:
    """One rendered glyph: the (32, 32, 3) uint8 picture and what is true of it."""

    image: np.ndarray
    symbol: str  # "7", "A" or "a"
    font: str | None  # family words of a printed glyph, None when drawn by hand
    ink: str
    background: str
    width: float | None  # of the pen, as a share of the frame; None for a printed glyph
    lean: float  # shear plus turn: positive leans to the right
    resolution: int  # pixels along a side before enlarging
    fill: float  # share of the frame that the glyph takes
    noise: float  # standard deviation, in levels of 255


def _place(glyph: Image.Image, fill: float, rng: np.random.Generator) -> np.ndarray:
    """The canvas shrunk to a share of the frame, somewhere in it: (32, 32) float64 in 0..255."""
    if fill < 1.0:
        side = max(12, round(SIDE * fill))
        canvas = Image.new("L", (SIDE, SIDE), 0)
        canvas.paste(
            glyph.resize((side, side), Image.Resampling.BILINEAR),
            tuple(rng.integers(0, SIDE - side + 1, 2).tolist()),
        )
        glyph = canvas
    return np.asarray(glyph.reduce(SIDE // IMAGE_SIZE), dtype=np.float64)


def lower_resolution(coverage: np.ndarray, resolution: int) -> np.ndarray:
    """Coverage (32, 32) in 0..255 as a scanner of fewer pixels sees it, enlarged again.

    At 8 pixels the glyph is made black and white first and counted in blocks of 4 x 4, as scanned forms are.
    """
    if resolution == IMAGE_SIZE:
        return coverage
    block = IMAGE_SIZE // resolution
    levels = (coverage > 127.0) * 255.0 if resolution == 8 else coverage
    pooled = levels.reshape(resolution, block, resolution, block).mean(axis=(1, 3))
    return enlarge_block_counts(pooled * (16.0 / 255.0)).astype(np.float64)


def _colours(rng: np.random.Generator) -> tuple[str, str]:
    mode = int(rng.choice(3, p=INK_SHARES))
    if mode < 2:
        return (("white", "black"), ("black", "white"))[mode]
    ink = str(rng.choice(list(COLOURS)))
    return ink, contrasting_colour(ink, rng)


def render_glyph(symbol: str, rng: np.random.Generator) -> GlyphPicture:
    """One picture of a symbol; hand-like when it has skeletons and the dice say so."""
    pose = random_pose(rng)
    share = HAND_SHARE_OF_DIGITS if symbol in DIGITS else HAND_SHARE_OF_LETTERS
    drawn = (symbol in DIGITS or symbol in CAPITALS or symbol in LOWERCASE) and rng.uniform() < share
    width = rng.uniform(0.06, 0.2) if drawn else None
    if width is not None:
        glyph, font = draw_strokes(symbol, pose, width, rng), None
    else:
        glyph, font = draw_printed(symbol, pose, rng)
    resolution = int(rng.choice(RESOLUTIONS, p=RESOLUTION_SHARES))
    fill = 1.0 if rng.uniform() < (0.8 if resolution == 8 else 0.4) else rng.uniform(0.5, 0.95)
    coverage = lower_resolution(_place(glyph, fill, rng), resolution)[..., None] / 255.0
    ink, background = _colours(rng)
    pure = (ink, background) == ("white", "black") and rng.uniform() < 0.5
    spread = 0.0 if pure else 12.0
    ground = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3))
    if not pure:
        kind = str(rng.choice(["plain", "gradient", "noisy", "striped"], p=[0.7, 0.1, 0.15, 0.05]))
        ground = render_ground(jittered_colour(background, rng, spread), kind, rng)
    front = np.full(3, 255.0) if pure else jittered_colour(ink, rng, spread)
    noise = 0.0 if pure or rng.uniform() < 0.6 else rng.uniform(4.0, 25.0)
    picture = ground * (1.0 - coverage) + front * coverage
    if noise:
        picture = picture + rng.normal(0.0, noise, picture.shape)
    image = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    lean = pose.slant + np.deg2rad(pose.turn)
    return GlyphPicture(image, symbol, font, ink, background, width, lean, resolution, fill, noise)


def random_letter(rng: np.random.Generator) -> str:
    """A capital or lowercase letter."""
    letter = ALPHABET[int(rng.integers(26))]
    return letter if rng.uniform() < 0.5 else letter.lower()
