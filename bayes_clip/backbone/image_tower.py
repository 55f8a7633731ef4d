"""The image encoder of an open_clip model, in two parts: up to its last attention layer, and from there on.

The first part is frozen. The second is a pure function of what the first makes, with low-rank changes of the
attention layer's maps, with derivatives and leading dimensions of samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.backbone.text_tower import Block, LowRankChange, attended, through
from bayes_clip.errors import UserError

_made: WeakKeyDictionary[Backbone, dict[tuple[torch.dtype, str], ImageTower]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False, repr=False)
class ImageTower:
    """An image encoder in one dtype on one device; make one with `image_tower`. W: its last layer's width."""

    before: Callable[[Tensor], Tensor]  # pictures (N, 3, h, w) -> tokens (N, T, W)
    block: Block  # the last attention layer: a residual block, or a pool of which the first token is taken
    after: Callable[[Tensor], Tensor] | None  # tokens (n, T, W) -> features (n, D); None: a pool
    size: tuple[int, int]  # of the pictures

    @property
    def maps(self) -> Tensor:
        """The maps (3, W, W) of queries, keys and values in the last attention layer."""
        return self.block.weights["attn.in_proj_weight"].unflatten(0, (3, -1))

    def states(self, pixels: Tensor) -> Tensor:
        """Tokens (N, T, W) in front of the last attention layer, of pixels (N, 3 h w)."""
        return self.before(pixels.reshape(-1, 3, *self.size))

    def encode(self, states: Tensor, change: LowRankChange) -> Tensor:
        """Unit features (..., N, D) of tokens (N, T, W); the change may have leading dimensions."""
        if self.after is None:
            features = attended(self.block, states, None, change)[..., 0, :]
        else:
            tokens = through(self.block, states, None, change)
            features = self.after(tokens.flatten(0, -3)).unflatten(0, tokens.shape[:-2])
        return normalize(features, dim=-1)


def image_tower(backbone: Backbone, dtype: torch.dtype, device: torch.device | str) -> ImageTower:
    """The image encoder of `backbone`; made once for each dtype and device, while the backbone lives.

    Raises:
        UserError: neither open_clip's ResNet with an attention pool nor its own vision transformer.
    """
    kept = _made.setdefault(backbone, {})
    key = (dtype, str(device))
    if key not in kept:
        module: Any = backbone.model.visual
        parameter = next(module.parameters())
        if (parameter.dtype, str(parameter.device)) != key:
            module = copy.deepcopy(module).to(device, dtype)
        if hasattr(module, "attnpool") and hasattr(module, "stem"):
            kept[key] = _with_pool(module, backbone.image_size)
        elif hasattr(module, "_embeds") and getattr(module, "attn_pool", 0) is None:
            kept[key] = _with_blocks(module, backbone)
        else:
            raise _unknown(backbone)
    return kept[key]


def _with_pool(module: Any, size: tuple[int, int]) -> ImageTower:
    """A ResNet whose features leave through an attention pool."""
    pool = module.attnpool

    def before(pictures: Tensor) -> Tensor:
        maps = module.stem(pictures)
        for layer in (module.layer1, module.layer2, module.layer3, module.layer4):
            maps = layer(maps)
        places = maps.flatten(2).mT
        tokens = torch.cat([places.mean(1, keepdim=True), places], dim=1)
        return tokens + pool.positional_embedding

    parts = (pool.q_proj, pool.k_proj, pool.v_proj)
    weights = {
        "attn.in_proj_weight": torch.cat([part.weight.detach() for part in parts]),
        "attn.in_proj_bias": torch.cat([part.bias.detach() for part in parts]),
        "attn.out_proj.weight": pool.c_proj.weight.detach(),
        "attn.out_proj.bias": pool.c_proj.bias.detach(),
    }
    return ImageTower(before, Block(weights, pool.num_heads, 0.0, torch.relu), None, size)


def _with_blocks(module: Any, backbone: Backbone) -> ImageTower:
    """A vision transformer."""
    last = module.transformer.resblocks[-1]
    if not isinstance(getattr(last, "attn", None), torch.nn.MultiheadAttention):
        raise _unknown(backbone)

    def before(pictures: Tensor) -> Tensor:
        tokens = module._embeds(pictures)
        for block in module.transformer.resblocks[:-1]:
            tokens = block(tokens)
        return tokens

    def after(tokens: Tensor) -> Tensor:
        pooled = module._pool(tokens)[0]
        return pooled if module.proj is None else pooled @ module.proj

    weights = {name: values.detach() for name, values in last.named_parameters()}
    block = Block(weights, last.attn.num_heads, last.ln_1.eps, last.mlp.gelu)
    return ImageTower(before, block, after, backbone.image_size)


def _unknown(backbone: Backbone) -> UserError:
    return UserError(
        f"{backbone.name}: its image encoder is neither open_clip's ResNet with an attention pool nor its "
        "vision transformer, and low-rank changes go there; use another --backbone, or a program on features"
    )
