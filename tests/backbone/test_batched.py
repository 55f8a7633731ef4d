from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.errors import UserError


class Overflowing(nn.Module):
    """An encoder whose inner numbers reach 2·10⁵: too large for float16, nothing to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 8, bias=False), nn.Linear(8, 8, bias=False)
        nn.init.constant_(self.up.weight, 6e4)  # float16 ends at 65504
        nn.init.constant_(self.down.weight, 1e-5)

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        return self.down(self.up(pixels.mean((-2, -1))))


def test_autocast_that_overflows_is_said_with_the_remedy(tiny: Backbone) -> None:
    pixels = torch.zeros(70, 3, 16, 16)
    pixels[66] = 1.0
    model = Overflowing().requires_grad_(False)
    whole, half = (replace(tiny, model=model, half=half) for half in (False, True))
    assert (whole.precision, half.precision) == ("float32", "float16")
    features = whole.encode_pixels(pixels)
    assert features.dtype == torch.float32 and bool(features.isfinite().all()) and features[66].norm() > 1
    message = r"picture 66: its features on tiny_clip are NaN or infinite: .*float16.* --precision float32"
    with pytest.raises(UserError, match=message):
        half.encode_pixels(pixels)


def test_features_leave_autocast_in_float32(tiny: Backbone) -> None:
    pixels = torch.randn(5, 3, 16, 16)
    half = replace(tiny, half=True).encode_pixels(pixels)
    assert half.dtype == torch.float32 and not torch.equal(half, tiny.encode_pixels(pixels))
    torch.testing.assert_close(half, tiny.encode_pixels(pixels), rtol=0.02, atol=0.02)


def test_weights_that_overflow_in_float32_blame_the_weights(tiny: Backbone) -> None:
    model = Overflowing().requires_grad_(False)
    model.up.weight *= 1e36
    with pytest.raises(UserError, match="weights are too large or broken; take other weights"):
        replace(tiny, model=model).encode_pixels(torch.ones(1, 3, 16, 16))


def test_a_cpu_takes_float32_whatever_is_asked() -> None:
    assert (
        load_backbone(precision="auto").precision == load_backbone(precision="float32").precision == "float32"
    )
    with pytest.raises(UserError, match="--precision float16: give auto or float32"):
        load_backbone(precision="float16")
