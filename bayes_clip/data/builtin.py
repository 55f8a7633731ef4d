"""The tasks that come with the package: real handwritten digits, and rendered shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bayes_clip.data.digit_images import DIGIT_CLASS_NAMES, DigitVariant, digit_images
from bayes_clip.data.encode import encode_class_names
from bayes_clip.data.not_digits import not_digits
from bayes_clip.data.rendered_shapes import render_shapes_task
from bayes_clip.data.rows import Pictures
from bayes_clip.data.task import Task, make_task, with_encoder

if TYPE_CHECKING:
    from bayes_clip.backbone.encoder import Backbone

TASKS: dict[str, str] = {
    "digits": "scikit-learn's real handwritten digits, 10 classes",
    "digits_rotated": "the same digits turned by 90 degrees: zero-shot fails, adaptation must earn its keep",
    "digits_mirrored": "the same digits with left and right swapped",
    "shapes": "rendered shapes in colours that pocket_clip never saw them in, 24 classes",
}
DIGIT_VARIANTS: dict[str, DigitVariant] = {
    "digits": "upright",
    "digits_rotated": "rotated",
    "digits_mirrored": "mirrored",
}
POOL_PER_CLASS = 40  # support pool; the other 1,397 digits are the query set
POOL_SEED = 0
OUT_COUNT = 600
OUT_SEED = 0


def builtin_task(name: str, backbone: Backbone, templates: Sequence[str] | None = None) -> Task:
    """Encode the built-in task `name`, a key of `TASKS`; prompts from `templates` or the backbone's own."""
    if name in DIGIT_VARIANTS:
        return _digits(name, backbone, templates)
    return _shapes(name, backbone, templates)


def digit_pool(labels: np.ndarray) -> np.ndarray:
    """Mask (1797,) of the support pool: a fixed draw of 40 digits per class, the same for every variant."""
    generator = np.random.default_rng(POOL_SEED)
    pool = np.zeros(len(labels), dtype=bool)
    for label in range(len(DIGIT_CLASS_NAMES)):
        pool[generator.permutation(np.flatnonzero(labels == label))[:POOL_PER_CLASS]] = True
    return pool


def _digits(name: str, backbone: Backbone, templates: Sequence[str] | None) -> Task:
    images, labels = digit_images(DIGIT_VARIANTS[name])
    features = _encode(images, backbone, f"encoding {name}")
    others = _pictures_of_no_digit()
    outside = _encode(others, backbone, "encoding pictures that are no digits")
    pool = digit_pool(labels)
    text, notes = encode_class_names(backbone, DIGIT_CLASS_NAMES, templates)
    task = make_task(
        name,
        features[pool],
        labels[pool],
        features[~pool],
        labels[~pool],
        class_names=DIGIT_CLASS_NAMES,
        text_features=text,
        logit_scale=backbone.logit_scale,
        ood_features=outside,
        backbone=backbone.fingerprint,
        query_images=_channels_first(images[~pool]),
        notes=notes,
    )
    sides = images[pool], images[~pool], others
    pictures = (_pictures(side, mirrors=False) for side in sides)  # mirrored, a digit is another sign
    return with_encoder(task, backbone, templates, *pictures)


def _shapes(name: str, backbone: Backbone, templates: Sequence[str] | None) -> Task:
    rendered = render_shapes_task()
    text, notes = encode_class_names(backbone, rendered.class_names, templates)
    task = make_task(
        name,
        _encode(rendered.support_images, backbone, f"encoding {name}"),
        rendered.support_labels,
        _encode(rendered.query_images, backbone, f"encoding {name}"),
        rendered.query_labels,
        class_names=rendered.class_names,
        text_features=text,
        logit_scale=backbone.logit_scale,
        backbone=backbone.fingerprint,
        query_images=_channels_first(rendered.query_images),
        notes=notes,
    )
    sides = rendered.support_images, rendered.query_images
    return with_encoder(task, backbone, templates, *(_pictures(side) for side in sides))


@lru_cache(maxsize=1)
def _pictures_of_no_digit() -> np.ndarray:
    return not_digits(OUT_COUNT, OUT_SEED)


def _encode(images: np.ndarray, backbone: Backbone, description: str) -> Tensor:
    """Pictures (N, h, w, 3) uint8 to raw features (N, D)."""

    def pictures() -> Iterator[Image.Image]:
        for image in images:
            yield Image.fromarray(image)

    return backbone.encode_images(pictures(), description=description, total=len(images))


def _pictures(images: np.ndarray, mirrors: bool = True) -> Pictures:
    return Pictures(lambda number: Image.fromarray(images[number]), tuple(range(len(images))), mirrors)


def _channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
