"""Hand-like glyphs: a skeleton with unsteady points, bent, and drawn with a round pen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from .distort import Pose, bend_points
from .skeletons import CAPITALS, DIGITS, LOWERCASE, Skeleton, Stroke

SIDE = 96  # pixels of the canvas, three times the final picture
SKELETONS: dict[str, tuple[Skeleton, ...]] = {**DIGITS, **CAPITALS, **LOWERCASE}


def _smooth(points: np.ndarray, per_segment: int = 7) -> np.ndarray:
    """Catmull-Rom curve through the points."""
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0.0, 1.0, per_segment, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(
            0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        )
    return np.concatenate([*pieces, points[-1:]])


def _trace(stroke: Stroke, rng: np.random.Generator, tremor: float) -> np.ndarray:
    """Dense points (N, 2) along one stroke whose control points were moved at random."""
    kind, control = stroke
    points = np.asarray(control, dtype=float)
    if kind == "o":
        start, gap = rng.uniform(0.0, 2.0 * np.pi), rng.normal(0.0, 0.15)
        angles = start + np.linspace(0.0, 2.0 * np.pi + gap, 9)
        points = points[0] + points[1] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = points + rng.normal(0.0, tremor, points.shape)
    if kind == "l":
        return np.concatenate([np.linspace(p, q, 4) for p, q in pairwise(points)])
    return _smooth(points)


def draw_strokes(
    symbol: str, pose: Pose, width: float, rng: np.random.Generator, tremor: float = 0.03
) -> Image.Image:
    """A white glyph on a black (96, 96) canvas, touching the frame; `width` is the pen's share of a side."""
    variants = SKELETONS[symbol]
    skeleton = variants[int(rng.integers(len(variants)))]
    traces = [bend_points(_trace(stroke, rng, tremor), pose) for stroke in skeleton]
    everything = np.concatenate(traces)
    low, high = everything.min(axis=0), everything.max(axis=0)
    pen = max(2.0, width * SIDE)
    scale = (SIDE - pen) / max(float((high - low).max()), 1e-6)
    offset = SIDE / 2.0 - scale * (low + high) / 2.0
    canvas = Image.new("L", (SIDE, SIDE), 0)
    draw = ImageDraw.Draw(canvas)
    for trace in traces:
        points = [tuple(point) for point in trace * scale + offset]
        draw.line(points, fill=255, width=round(pen))
        for x, y in points:  # round joints and ends: quicker than PIL's own
            draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return canvas
