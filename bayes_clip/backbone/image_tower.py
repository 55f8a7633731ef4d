"""The image encoder of an open_clip model as a pure function of the maps of its last attention layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import normalize

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.errors import UserError

TOGETHER = ("in_proj_weight", "qkv.weight")  # one parameter (3W, W) for queries, keys and values
APART = ("q_proj.weight", "k_proj.weight", "v_proj.weight")

_made: WeakKeyDictionary[Backbone, dict[tuple[torch.dtype, str], ImageTower]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False, repr=False)
class ImageTower:
    """A frozen image encoder in one dtype on one device; make one with `image_tower`."""

    module: Any
    frozen: dict[str, Tensor]  # parameters and buffers by name
    names: tuple[str, ...]  # of the last attention layer's map parameters: one for all, or three
    size: tuple[int, int]  # of the pictures

    @property
    def maps(self) -> Tensor:
        """The maps (3, W, W) of queries, keys and values in the last attention layer."""
        whole = torch.cat([self.frozen[name] for name in self.names])
        return whole.unflatten(0, (3, -1))

    def encode(self, pixels: Tensor, maps: Tensor) -> Tensor:
        """Unit features (..., N, D) of pixels (N, 3 h w) under maps (..., 3, W, W)."""
        pictures = pixels.reshape(-1, 3, *self.size)

        def one(maps: Tensor) -> Tensor:
            parts = (maps.flatten(0, 1),) if len(self.names) == 1 else tuple(maps.unbind())
            changed = {**self.frozen, **dict(zip(self.names, parts, strict=True))}
            # fused attention has no rule for batches of derivatives
            with sdpa_kernel(SDPBackend.MATH):
                return normalize(functional_call(self.module, changed, (pictures,)), dim=-1)

        samples = maps.shape[:-3]
        if not samples:
            return one(maps)
        return torch.func.vmap(one)(maps.reshape(-1, *maps.shape[-3:])).unflatten(0, samples)


def image_tower(backbone: Backbone, dtype: torch.dtype, device: torch.device | str) -> ImageTower:
    """The image encoder of `backbone`; made once for each dtype and device, while the backbone lives.

    Raises:
        UserError: an image encoder without an attention layer that is known by its parameters' names.
    """
    kept = _made.setdefault(backbone, {})
    key = (dtype, str(device))
    if key not in kept:
        module = backbone.model.visual
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        frozen = {
            name: value.detach().to(device, dtype if value.is_floating_point() else value.dtype)
            for name, value in tensors.items()
        }
        kept[key] = ImageTower(module, frozen, _last_attention(backbone, frozen), backbone.image_size)
    return kept[key]


def _last_attention(backbone: Backbone, frozen: dict[str, Tensor]) -> tuple[str, ...]:
    for name in reversed(frozen):
        if name.endswith(TOGETHER):
            return (name,)
        stem = name.removesuffix(APART[0])
        apart = tuple(stem + part for part in APART)
        if name.endswith(APART[0]) and all(part in frozen for part in apart):
            return apart
    raise UserError(
        f"{backbone.name}: no attention layer is known in its image encoder, and low-rank changes go there; "
        "use another --backbone, or a program that works on features"
    )
