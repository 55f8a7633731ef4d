"""Pooled features times the projection are the features, for every kind of tower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.projection import pooled_features, projection_of
from bayes_clip.errors import UserError

TIMM = {
    "embed_dim": 8,
    "vision_cfg": {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "image_size": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def pixels(backbone: Backbone, rows: int = 3) -> torch.Tensor:
    size = backbone.preprocessing["size"]
    shape = (size, size) if isinstance(size, int) else size
    return torch.randn(rows, 3, *shape, generator=torch.Generator().manual_seed(0))


def timm_backbone(like: Backbone, **vision: object) -> Backbone:
    """A made-up backbone with a tower from timm."""
    open_clip = pytest.importorskip("open_clip")
    pytest.importorskip("timm")
    torch.manual_seed(0)
    config = {**TIMM, "vision_cfg": {**TIMM["vision_cfg"], **vision}}
    model = open_clip.CLIP(**config).eval().requires_grad_(False)
    return replace(like, name="tiny timm", model=model, preprocessing={"size": 32})


def check(backbone: Backbone) -> None:
    pictures = pixels(backbone)
    projection, pooled = projection_of(backbone), pooled_features(backbone, pictures)
    assert pooled.shape == (3, len(projection.weight)) and projection.weight.shape[1] == backbone.feature_dim
    features = pooled @ projection.weight
    if projection.bias is not None:
        features = features + projection.bias
    torch.testing.assert_close(features, backbone.encode_images(pictures), rtol=1e-5, atol=1e-5)


def test_a_resnet_is_its_pooled_features_projected() -> None:
    backbone = load_backbone()
    check(backbone)
    assert projection_of(backbone).bias is not None


def test_a_vision_transformer_is_its_pooled_features_projected(tiny: Backbone) -> None:
    check(tiny)
    assert projection_of(tiny).bias is None


@pytest.mark.parametrize("biased", [False, True])
def test_a_timm_tower_is_its_pooled_features_projected(tiny: Backbone, biased: bool) -> None:
    check(timm_backbone(tiny, timm_proj="linear", timm_proj_bias=biased))


def test_the_backbone_itself_stays_as_it_was(tiny: Backbone) -> None:
    before = {key: value.clone() for key, value in tiny.model.state_dict().items()}
    pooled_features(tiny, pixels(tiny))
    assert all(torch.equal(before[key], value) for key, value in tiny.model.state_dict().items())
    projection_of(tiny).weight.zero_()
    assert all(torch.equal(before[key], value) for key, value in tiny.model.state_dict().items())


def test_towers_without_an_affine_end_are_refused_in_one_line(tiny: Backbone) -> None:
    without = [
        timm_backbone(tiny, timm_proj="mlp"),
        replace(tiny, model=nn.Module()),
    ]
    for backbone in without:
        with pytest.raises(UserError, match="does not end in one affine projection") as refusal:
            projection_of(backbone)
        assert "\n" not in str(refusal.value)
        with pytest.raises(UserError, match="does not end in one affine projection"):
            pooled_features(backbone, [])
