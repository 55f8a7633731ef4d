"""Random crops and mirror images of pictures, as CoOp's trainer and the methods built on it make them.

A crop of a random share and shape of the picture, resized to what the encoder takes, and mirrored every
other time: torchvision's own transforms. Where a mirror image is no picture of the class any more (a digit),
the pictures say so and are cropped only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bayes_clip.data.rows import Pictures, Rows
from bayes_clip.randomness import own_random_numbers

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone, Picture


def augmented_pictures(
    pictures: Pictures, size: tuple[int, int], seed: int, draw: int, smallest_crop: float = 0.08
) -> Pictures:
    """One random view of each picture, `size` (h, w); which one, `seed` and `draw` say.

    `smallest_crop`: the share of a picture that a crop keeps at least (at most all of it).
    """
    from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

    crop = RandomResizedCrop(size, scale=(smallest_crop, 1.0), interpolation=InterpolationMode.BICUBIC)
    view = Compose([crop, RandomHorizontalFlip()] if pictures.mirrors else [crop])
    # the two numbers together, so that draws of one seed are not those of the next
    state = int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])
    with own_random_numbers(torch.device("cpu"), state):
        views: list[Picture] = [view(picture) for picture in pictures]
    return Pictures(views.__getitem__, tuple(range(len(views))), pictures.mirrors)


def augmented_rows(rows: Rows, encoder: Backbone, seed: int, draw: int, smallest_crop: float = 0.08) -> Rows:
    """The same rows seen through one random view of each picture: features, norms and pictures.

    `rows` must have pictures.
    """
    assert rows.pictures is not None
    views = augmented_pictures(rows.pictures, encoder.image_size, seed, draw, smallest_crop)
    raw = encoder.encode_images(views, description="Encoding augmented pictures", total=len(views)).clone()
    norms = raw.norm(dim=-1)
    return Rows(raw / norms[:, None], norms, views)
