"""The text encoder of an open_clip model as a pure function of token embeddings.

open_clip encodes token numbers; programs that learn contexts or layers need the same function of what comes
after the embedding, with derivatives, in any floating-point dtype and with leading dimensions of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, normalize

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.errors import UserError

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class LowRankChange:
    """A change B A of the maps of queries, keys and values, kept apart from them: its slopes stay small."""

    down: Tensor  # A (..., 3, r, W)
    up: Tensor  # B (..., 3, W, r)

    def of(self, states: Tensor) -> Tensor:
        """What it adds (..., n, L, 3W) to the queries, keys and values of states (..., n, L, W)."""
        inner = torch.einsum("...nlw,...krw->...nlkr", states, self.down)
        return torch.einsum("...nlkr,...kwr->...nlkw", inner, self.up).flatten(-2)


@dataclass(frozen=True, eq=False, repr=False)
class Block:
    """One residual attention block: its weights by open_clip's names, and its activation."""

    weights: Weights
    heads: int
    epsilon: float  # of its layer norms
    activation: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class TextTower:
    """A frozen text encoder in one dtype on one device; make one with `text_tower`. W: its width."""

    tokens: Tensor  # (vocabulary, W) embeddings, in the dtype of the checkpoint
    positions: Tensor  # (L, W)
    blocks: tuple[Block, ...]
    mask: Tensor | None  # (L, L), added to attention scores; None: tokens see each other
    final: Weights  # the last layer norm: weight, bias
    epsilon: float
    projection: Tensor | None  # (W, D)
    bias: Tensor | None  # (D,) of the projection
    pooling: str  # argmax, eos, first or last: the token whose state is the text's feature
    end_token: int  # what eos looks for

    @property
    def is_trimmable(self) -> bool:
        """Whether what follows the pooled token changes nothing: causal attention, and no last position."""
        return self.mask is not None and self.pooling in ("argmax", "eos", "first")

    def numbers(self, length: int) -> int:
        """About how many numbers one prompt of `length` tokens leaves behind in a block, for memory."""
        width = self.positions.shape[1]
        return length * (16 * width + 3 * self.blocks[0].heads * length)

    def pooled_places(self, numbers: Tensor) -> Tensor:
        """The place (n,) of the pooled token in token numbers (n, L)."""
        if self.pooling == "argmax":
            return numbers.argmax(-1)
        if self.pooling == "eos":
            return numbers.eq(self.end_token).int().argmax(-1)
        return torch.full((len(numbers),), 0 if self.pooling == "first" else numbers.shape[1] - 1)

    def hidden(
        self,
        embedded: Tensor,
        first: int = 0,
        last: int | None = None,
        changes: dict[int, LowRankChange] | None = None,
    ) -> Tensor:
        """States (..., n, L, W) after the blocks `first` to `last` (exclusive), from states before them.

        The states before block 0 are token plus position embeddings. `changes`: of blocks, by number.
        """
        mask = self.mask
        if mask is not None:
            mask = mask[: embedded.shape[-2], : embedded.shape[-2]]
        states = embedded
        for number in range(len(self.blocks))[first:last]:
            states = through(self.blocks[number], states, mask, (changes or {}).get(number))
        return states

    def pooled(self, states: Tensor, pool: Tensor) -> Tensor:
        """Features (..., n, D), not normalised, of states (..., n, L, W) pooled by one-hot rows (n, L)."""
        one = torch.einsum("nl,...nlw->...nw", pool, states)  # a layer norm works token by token
        one = layer_norm(one, one.shape[-1:], self.final["weight"], self.final.get("bias"), self.epsilon)
        one = one if self.projection is None else one @ self.projection
        return one if self.bias is None else one + self.bias

    def encode(self, embedded: Tensor, pool: Tensor) -> Tensor:
        """Unit features (..., n, D) of token plus position embeddings (..., n, L, W)."""
        return normalize(self.pooled(self.hidden(embedded), pool), dim=-1)


def text_tower(backbone: Backbone, dtype: torch.dtype, device: torch.device | str) -> TextTower:
    """The text encoder of `backbone`, its weights copied to `dtype` and `device` (but for the vocabulary).

    Raises:
        UserError: a text encoder that is no plain open_clip transformer (Hugging Face, CoCa and others).
    """
    model: Any = backbone.model
    tower: Any = getattr(model, "text", model)
    whole = all(hasattr(tower, part) for part in ("token_embedding", "positional_embedding", "transformer"))
    if not whole or getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False):
        raise _unknown(backbone)
    plain = tower is model  # open_clip.CLIP, which keeps the parts of its text encoder itself

    def copied(weights: Tensor) -> Tensor:
        return weights.detach().to(device, dtype)

    blocks = tuple(_block(block, copied, backbone) for block in tower.transformer.resblocks)
    projection, bias = tower.text_projection, None
    if isinstance(projection, torch.nn.Linear):
        bias = None if projection.bias is None else copied(projection.bias)
        projection = projection.weight.mT
    mask = tower.attn_mask
    return TextTower(
        tokens=tower.token_embedding.weight.detach(),
        positions=copied(tower.positional_embedding),
        blocks=blocks,
        mask=None if mask is None else copied(mask),
        final={name: copied(weights) for name, weights in tower.ln_final.named_parameters()},
        epsilon=tower.ln_final.eps,
        projection=None if projection is None else copied(projection),
        bias=bias,
        pooling=tower.text_pool_type if plain else tower.pool_type,
        end_token=tower.text_eos_id if plain else tower.eos_id,
    )


def _block(block: Any, copied: Callable[[Tensor], Tensor], backbone: Backbone) -> Block:
    if not isinstance(getattr(block, "attn", None), torch.nn.MultiheadAttention) or hasattr(block, "ln_1_kv"):
        raise _unknown(backbone)
    weights = {name: copied(values) for name, values in block.named_parameters()}
    return Block(weights, block.attn.num_heads, block.ln_1.eps, block.mlp.gelu)


def _unknown(backbone: Backbone) -> UserError:
    return UserError(
        f"{backbone.name}: its text encoder is no plain open_clip transformer, and programs that learn "
        "inside it need one; use another --backbone, or a program that works on features"
    )


def through(block: Block, states: Tensor, mask: Tensor | None, change: LowRankChange | None = None) -> Tensor:
    """States (..., n, L, W) after a residual attention block."""
    weights = block.weights
    seen = attended(block, _normed(block, "ln_1", states), mask, change)
    states = states + _scaled(block, "ls_1", seen)
    inner = _normed(block, "ln_2", states) @ weights["mlp.c_fc.weight"].mT + weights["mlp.c_fc.bias"]
    outer = block.activation(inner) @ weights["mlp.c_proj.weight"].mT + weights["mlp.c_proj.bias"]
    return states + _scaled(block, "ls_2", outer)


def attended(block: Block, states: Tensor, mask: Tensor | None, change: LowRankChange | None) -> Tensor:
    """Self-attention (..., n, L, W), written out: fused kernels have no rule for batches of derivatives."""
    weights, width = block.weights, states.shape[-1]
    together = states @ weights["attn.in_proj_weight"].mT + weights["attn.in_proj_bias"]
    together = together if change is None else together + change.of(states)
    parts = together.unflatten(-1, (3, block.heads, width // block.heads))  # (..., L, 3, heads, w)
    query, key, value = (parts[..., index, :, :].transpose(-3, -2) for index in range(3))
    scores = query @ key.mT / query.shape[-1] ** 0.5
    scores = scores if mask is None else scores + mask
    mixed = (scores.softmax(-1) @ value).transpose(-3, -2).flatten(-2)
    return mixed @ weights["attn.out_proj.weight"].mT + weights["attn.out_proj.bias"]


def _normed(block: Block, name: str, states: Tensor) -> Tensor:
    weight, bias = block.weights[f"{name}.weight"], block.weights.get(f"{name}.bias")
    return layer_norm(states, states.shape[-1:], weight, bias, block.epsilon)


def _scaled(block: Block, name: str, states: Tensor) -> Tensor:
    gamma = block.weights.get(f"{name}.gamma")
    return states if gamma is None else states * gamma
