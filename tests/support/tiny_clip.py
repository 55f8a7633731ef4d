"""Open_clip models with random weights, made up on the spot as backbones."""

from __future__ import annotations

from typing import Any

import open_clip
import torch

from bayes_clip.backbone.encoder import Backbone

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
VISION = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8}


def tiny_backbone(*, custom: bool = False, **text: Any) -> Backbone:
    """A CLIP (or CustomTextCLIP) of two layers per tower; `text` overrules the text tower's config."""
    torch.manual_seed(0)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model: Any = kind(8, VISION, {**TEXT, **text}).eval().requires_grad_(False)
    return Backbone(
        name="tiny",
        pretrained=None,
        fingerprint="tiny",
        logit_scale=20.0,
        feature_dim=8,
        default_templates=("a photo of a {}.",),
        vocabulary=None,
        device="cpu",
        model=model,
        preprocess=lambda picture: picture,
        preprocessing={"size": 16},
        tokenize=open_clip.get_tokenizer("ViT-B-32"),
    )
