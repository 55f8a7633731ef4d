"""Random geometric distortions: of stroke points before they are drawn, and of finished glyph pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Pose:
    """How a glyph leans and is warped; `slant` is a shear, positive to the right, `turn` in degrees."""

    slant: float
    turn: float
    stretch: float  # factor on the width
    warp: tuple[tuple[float, ...], ...]  # (2 axes) x (amplitude, frequency x, frequency y, phase)


def random_pose(rng: np.random.Generator) -> Pose:
    """A pose within what a hand does; never a quarter turn, never a mirror image."""
    warp = tuple(
        (rng.uniform(0.0, 0.05), rng.uniform(0.5, 4.0), rng.uniform(0.5, 4.0), rng.uniform(0.0, 6.3))
        for _ in range(2)
    )
    return Pose(rng.normal(0.0, 0.2), rng.normal(0.0, 7.0), float(np.exp(rng.normal(-0.2, 0.22))), warp)


def _linear(pose: Pose) -> np.ndarray:
    angle = np.deg2rad(pose.turn)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shear = np.array([[pose.stretch, 0.0], [-pose.slant, 1.0]])
    return shear @ turn


def bend_points(points: np.ndarray, pose: Pose) -> np.ndarray:
    """Points (N, 2) around the unit square's centre, warped by two sine waves, then leaned and turned."""
    waves = [
        amplitude * np.sin(fx * points[:, 0] + fy * points[:, 1] + phase)
        for amplitude, fx, fy, phase in pose.warp
    ]
    return (points - 0.5 + np.stack(waves, axis=1)) @ _linear(pose)


def bend_picture(picture: Image.Image, pose: Pose) -> Image.Image:
    """The same distortion of a grey picture with margins, on a mesh of 4 x 4 quadrilaterals."""
    side, cells = picture.width, 4
    ticks = np.linspace(0.0, 1.0, cells + 1)
    nodes = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    inverse = np.linalg.inv(_linear(pose))
    source = (nodes - 0.5) @ inverse + 0.5
    waves = [a * np.sin(fx * source[:, 0] + fy * source[:, 1] + phase) for a, fx, fy, phase in pose.warp]
    source = ((source - np.stack(waves, axis=1)) * side).reshape(cells + 1, cells + 1, 2)
    mesh = []
    for row in range(cells):
        for column in range(cells):
            box = tuple(
                round(side * t)
                for t in (column / cells, row / cells, (column + 1) / cells, (row + 1) / cells)
            )
            corners = (source[row, column], source[row + 1, column],
                       source[row + 1, column + 1], source[row, column + 1])  # fmt: skip
            mesh.append((box, tuple(float(value) for corner in corners for value in corner)))
    return picture.transform(picture.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
