"""The training set: so many captioned pictures, in chunks that depend on the seed and their number alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np

from bayes_clip.data.rendered_shapes import COLOURS, HELD_OUT_COMBINATIONS, SHAPES, render_shape
from bayes_clip.data.rendered_textures import TEXTURES, render_texture

from .captions import TokenCounter
from .glyphs import random_letter, render_glyph
from .tokens import CONTEXT_LENGTH, CaptionEncoder
from .wording import caption_glyph, caption_shape, caption_texture

CHUNK = 1000
CAPTIONS_EACH = 2
KINDS, KIND_SHARES = ("digit", "letter", "shape", "texture"), (0.44, 0.20, 0.29, 0.07)
TRAINING_COMBINATIONS = tuple(
    (shape, colour) for shape in SHAPES for colour in COLOURS if (shape, colour) not in HELD_OUT_COMBINATIONS
)


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures (N, 32, 32, 3) uint8, token rows (N, 2, 32) int32 and the words used in the captions."""

    images: np.ndarray
    tokens: np.ndarray
    words: frozenset[str]


def render_captioned(
    kind: str, count: TokenCounter, rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """One picture of a kind (KINDS) and its captions."""
    write: Callable[[], str]
    if kind in ("digit", "letter"):
        glyph = render_glyph(str(rng.integers(10)) if kind == "digit" else random_letter(rng), rng)
        image, write = glyph.image, partial(caption_glyph, glyph, count, rng)
    elif kind == "shape":
        shape = render_shape(*TRAINING_COMBINATIONS[int(rng.integers(len(TRAINING_COMBINATIONS)))], rng)
        image, write = shape.image, partial(caption_shape, shape, count, rng)
    else:
        texture = render_texture(str(rng.choice(TEXTURES)), rng)
        image, write = texture.image, partial(caption_texture, texture, count, rng)
    return image, [write() for _ in range(CAPTIONS_EACH)]


def render_chunk(number: int, seed: int, size: int = CHUNK) -> CaptionedPictures:
    """The chunk of this number; the same for the same seed, whoever renders it."""
    rng = np.random.default_rng([seed, number])
    encoder = CaptionEncoder()
    images = np.empty((size, 32, 32, 3), dtype=np.uint8)
    tokens = np.empty((size, CAPTIONS_EACH, CONTEXT_LENGTH), dtype=np.int32)
    for index in range(size):
        kind = str(rng.choice(KINDS, p=KIND_SHARES))
        images[index], captions = render_captioned(kind, encoder.count, rng)
        tokens[index] = [encoder.row(caption) for caption in captions]
    return CaptionedPictures(images, tokens, frozenset(encoder.words))


def render_dataset(chunks: int, seed: int, processes: int) -> CaptionedPictures:
    """`chunks` times 1,000 captioned pictures; the number of processes does not change them."""
    with get_context("spawn").Pool(processes) as pool:
        parts = pool.map(partial(render_chunk, seed=seed), range(chunks), chunksize=1)
    return CaptionedPictures(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        frozenset().union(*(part.words for part in parts)),
    )
