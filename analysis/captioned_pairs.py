"""Pairs of rendered pictures and captions, changed as their encoder never saw them, through both towers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import bayes_clip as bc

sys.path.insert(0, str(Path(__file__).parents[1]))  # the rendered captions are beside the package
from models.pocket_clip.render.dataset import KINDS, render_captioned
from models.pocket_clip.render.tokens import CaptionEncoder

Pictures = NDArray[np.uint8]

SHIFTS: dict[str, Callable[[Pictures], Pictures]] = {
    "turned": lambda pictures: np.rot90(pictures, axes=(1, 2)),
    "red and blue swapped": lambda pictures: pictures[..., ::-1],
}


@dataclass(frozen=True)
class Pairs:
    """N pictures and their captions: unit features (N, D) each, and the captions."""

    images: Tensor
    texts: Tensor
    captions: tuple[str, ...]

    def part(self, rows: Tensor) -> Pairs:
        """These pairs alone."""
        return Pairs(self.images[rows], self.texts[rows], tuple(self.captions[row] for row in rows.tolist()))

    @property
    def relevant(self) -> NDArray[np.bool_]:
        """(N, N): whose caption reads like a picture's own; a caption written twice is right twice."""
        return np.array([[own == other for other in self.captions] for own in self.captions])


def rendered(count: int, seed: list[int]) -> tuple[Pictures, tuple[str, ...]]:
    """`count` pictures, of every kind in turn, with a caption each."""
    generator, encoder = np.random.default_rng(seed), CaptionEncoder()
    found = [render_captioned(KINDS[row % len(KINDS)], encoder.count, generator) for row in range(count)]
    return np.stack([image for image, _ in found]), tuple(captions[0] for _, captions in found)


def encoded(backbone: bc.Backbone, pictures: Pictures, captions: tuple[str, ...]) -> Pairs:
    """Through both towers."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    images, texts = backbone.encode_images(list(pixels)), backbone.encode_texts(captions)
    unit = torch.nn.functional.normalize
    return Pairs(unit(images, dim=-1), unit(texts, dim=-1), captions)
