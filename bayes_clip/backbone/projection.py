"""The last projection of an image tower, and what the tower has before it.

open_clip's vision transformers, its own ResNets and timm towers with a linear head all end in one affine map
from what they pooled to the features. Methods that adapt this map need both sides of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from bayes_clip.backbone.encoder import Backbone, Picture
from bayes_clip.errors import UserError
from bayes_clip.model import Projection


@dataclass(frozen=True)
class _Place:
    """Where a tower keeps its projection: parameter names there, and whether rows are outputs (nn.Linear)."""

    weight: str
    bias: str | None
    transposed: bool


def projection_of(backbone: Backbone) -> Projection:
    """The projection of the image tower: features are ``pooled @ weight + bias``.

    Weight (F, D) and bias (D,), or None where the tower has no bias, in float32 on the CPU.

    Raises:
        UserError: the tower does not end in one affine map.
    """
    place = _place(backbone)
    parameters = dict(backbone.model.visual.named_parameters())
    weight = parameters[place.weight].detach().float().cpu()
    bias = None if place.bias is None else parameters[place.bias].detach().float().cpu().clone()
    return Projection(weight.mT.contiguous() if place.transposed else weight.clone(), bias)


def pooled_features(backbone: Backbone, pictures: Iterable[Picture]) -> Tensor:
    """What the image tower has before its projection: (N, F) float32 on the CPU.

    `pictures` as `Backbone.encode_images` takes them: RGB, uint8 (3, h, w), or preprocessed pixels.

    Raises:
        UserError: the tower does not end in one affine map, or pixels of another size than the model's.
    """
    place = _place(backbone)
    weight = dict(backbone.model.visual.named_parameters())[place.weight]
    width = weight.shape[1 if place.transposed else 0]
    neutral = {place.weight: torch.eye(width, dtype=weight.dtype, device=weight.device)}
    if place.bias is not None:
        neutral[place.bias] = weight.new_zeros(width)
    unprojected = _Unprojected(backbone.model.visual, neutral)
    return replace(backbone, model=unprojected, feature_dim=width).encode_images(pictures)


class _Unprojected:
    """A model whose image tower projects by the identity: every kind of tower hands out what it pooled."""

    def __init__(self, tower: nn.Module, neutral: dict[str, Tensor]) -> None:
        self._tower, self._neutral = tower, neutral

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        """Pooled features (N, F)."""
        pooled = torch.func.functional_call(self._tower, self._neutral, (pixels,))
        return pooled[0] if isinstance(pooled, tuple) else pooled  # CoCa's towers hand out tokens as well


def _place(backbone: Backbone) -> _Place:
    tower = getattr(backbone.model, "visual", None)
    if isinstance(tower, VisionTransformer) and tower.proj is not None:
        return _Place("proj", None, transposed=False)
    if isinstance(tower, ModifiedResNet):
        return _linear("attnpool.c_proj", tower.attnpool.c_proj)
    if isinstance(tower, TimmModel) and isinstance(getattr(tower.head, "proj", None), nn.Linear):
        return _linear("head.proj", tower.head.proj)
    raise UserError(
        f"{backbone.name}: its image tower ({type(tower).__name__}) does not end in one affine projection; "
        "take a ViT, RN or timm backbone that does, or another model program"
    )


def _linear(name: str, layer: Any) -> _Place:
    return _Place(f"{name}.weight", None if layer.bias is None else f"{name}.bias", transposed=True)
