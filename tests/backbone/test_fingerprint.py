from __future__ import annotations

import torch

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.fingerprint import fingerprint

WEIGHTS = {"a": torch.arange(6.0), "b": torch.tensor(2.0)}
PREPROCESSING = {"size": 32, "mean": (0.5, 0.5, 0.5)}


def test_equal_encoders_have_equal_fingerprints() -> None:
    first = fingerprint("clip", WEIGHTS, PREPROCESSING)
    backwards = {key: WEIGHTS[key].clone() for key in reversed(WEIGHTS)}
    assert fingerprint("clip", backwards, {"mean": [0.5, 0.5, 0.5], "size": 32}) == first
    assert len(first) == 16 and int(first, 16) >= 0


def test_every_difference_shows() -> None:
    moved = WEIGHTS | {"a": torch.arange(6.0).index_fill(0, torch.tensor([5]), 5.0000005)}
    variants = [
        fingerprint("clip", WEIGHTS, PREPROCESSING),
        fingerprint("other", WEIGHTS, PREPROCESSING),
        fingerprint("clip", moved, PREPROCESSING),
        fingerprint("clip", WEIGHTS | {"a": torch.arange(6.0).reshape(2, 3)}, PREPROCESSING),
        fingerprint("clip", WEIGHTS | {"a": torch.arange(6.0).half()}, PREPROCESSING),
        fingerprint("clip", {"c": WEIGHTS["a"], "b": WEIGHTS["b"]}, PREPROCESSING),
        fingerprint("clip", WEIGHTS, PREPROCESSING | {"size": 64}),
    ]
    assert len(set(variants)) == len(variants)


def test_loading_twice_gives_the_same_fingerprint(
    tiny: Backbone, tiny_config: object, tiny_weights: object
) -> None:
    assert load_backbone(str(tiny_config), str(tiny_weights)).fingerprint == tiny.fingerprint
