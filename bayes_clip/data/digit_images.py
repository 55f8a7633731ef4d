"""Scikit-learn's real handwritten digits as 32 x 32 pictures.

The set is the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998): 1,797
digits whose 32 x 32 bitmaps were counted over blocks of 4 x 4 pixels, which leaves 8 x 8 numbers, 0 to 16.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from bayes_clip.errors import UserError

IMAGE_SIZE = 32
DIGIT_CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DigitVariant = Literal["upright", "rotated", "mirrored"]
VARIANTS: tuple[DigitVariant, ...] = ("upright", "rotated", "mirrored")


def enlarge_block_counts(counts: np.ndarray) -> np.ndarray:
    """Picture of block counts: (n, n) numbers from 0 to 16 to a (32, 32) uint8 grey picture, bicubic.

    The renderer that made pocket_clip's training pictures simulates low resolution with this same function.
    """
    levels = np.clip(np.rint(np.asarray(counts, dtype=np.float64) * (255.0 / 16.0)), 0, 255).astype(np.uint8)
    small = Image.fromarray(levels)
    return np.asarray(small.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def digit_images(variant: DigitVariant = "upright") -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits, white on black, as (1797, 32, 32, 3) uint8 pictures, and their labels (1797,) int64.

    `rotated` turns each by 90 degrees counter-clockwise, `mirrored` swaps left and right.
    """
    if variant not in VARIANTS:
        raise UserError(f"unknown digit variant '{variant}'; use one of {', '.join(VARIANTS)}")
    digits = load_digits()
    grey = np.stack([enlarge_block_counts(image) for image in digits.images])
    if variant == "rotated":
        grey = np.rot90(grey, axes=(1, 2))
    elif variant == "mirrored":
        grey = grey[:, :, ::-1]
    images = np.repeat(np.ascontiguousarray(grey)[..., None], 3, axis=-1)
    return images, digits.target.astype(np.int64)
