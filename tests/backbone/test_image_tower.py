"""The image encoder in two parts is the whole one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_problems import assert_near
from tiny_clip import tiny_backbone
from torch.nn.functional import normalize

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.image_tower import image_tower
from bayes_clip.backbone.text_tower import LowRankChange
from bayes_clip.errors import UserError


@pytest.mark.parametrize("made", [tiny_backbone, load_backbone])
def test_without_a_change_features_are_those_of_open_clip(made: type[Backbone]) -> None:
    """A vision transformer, and pocket_clip's ResNet with an attention pool; one change, and several."""
    backbone = made()
    size = backbone.image_size
    pixels = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tower = image_tower(backbone, torch.float64, "cpu")
    width = tower.maps.shape[-1]
    zero = LowRankChange(torch.ones(4, 3, 2, width).double(), torch.zeros(4, 3, width, 2).double())
    one = LowRankChange(zero.down[0], zero.up[0])
    wanted = normalize(backbone.encode_pixels(pixels.float()), dim=-1)
    states = tower.states(pixels.flatten(1))
    assert_near(tower.encode(states, one), wanted.double(), 1e-5)
    assert_near(tower.encode(states, zero), tower.encode(states, one).expand(4, -1, -1))
    assert tower is image_tower(backbone, torch.float64, "cpu")


def test_other_image_encoders_are_refused() -> None:
    other = torch.nn.Module()
    other.visual = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="tiny: its image encoder is neither open_clip's ResNet"):
        image_tower(replace(tiny_backbone(), model=other), torch.float32, "cpu")
