"""Which of open_clip's architectures weights are of, by the shapes of their largest parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
from torch import Tensor

# of a plain CLIP; the text tower of a CustomTextCLIP has "text." before its names
PATCHES, GRID = "visual.conv1.weight", "visual.positional_embedding"
WORDS, PLACES, BLOCK = "token_embedding.weight", "positional_embedding", "resblocks."
FLAVOURS = ("-quickgelu",)  # the same shapes with another activation: weights do not tell


def like(state: Mapping[str, Tensor]) -> list[str]:
    """Names of open_clip's vision transformers that have the shapes of `state`; none for other towers.

    Compared: patch, image size, width and depth of both towers, vocabulary, context and feature width.
    """
    seen = _measures(state)
    if seen is None:
        return []
    configs = {name: open_clip.get_model_config(name) or {} for name in open_clip.list_models()}
    found = [name for name, config in configs.items() if _measures_of(config) == seen]
    return sorted(found, key=lambda name: (name.endswith(FLAVOURS), len(name)))


def _measures(state: Mapping[str, Tensor]) -> tuple[Any, ...] | None:
    text = "text." if f"text.{WORDS}" in state else ""
    needed = (PATCHES, GRID, text + WORDS, text + PLACES)
    if any(key not in state for key in needed):
        return None
    patches, grid, words, places = (state[key] for key in needed)
    if patches.ndim != 4 or any(part.ndim != 2 for part in (grid, words, places)):
        return None
    side = round((len(grid) - 1) ** 0.5)
    embed = state.get(f"{text}text_projection")
    return (
        (patches.shape[-1], side * patches.shape[-1], patches.shape[0], _depth(state, "visual.transformer.")),
        (words.shape[0], words.shape[1], places.shape[0], _depth(state, f"{text}transformer.")),
        None if embed is None else embed.shape[-1],
    )


def _measures_of(config: Mapping[str, Any]) -> tuple[Any, ...] | None:
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    if not isinstance(vision.get("layers"), int) or not isinstance(vision.get("image_size"), int):
        return None
    patch = vision.get("patch_size", 16)
    side = vision["image_size"] // patch * patch  # what does not fill a patch is cut off
    return (
        (patch, side, vision.get("width", 768), vision["layers"]),
        (
            text.get("vocab_size", 49408),
            text.get("width", 512),
            text.get("context_length", 77),
            text.get("layers", 12),
        ),
        config.get("embed_dim"),
    )


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    blocks = [key.removeprefix(tower + BLOCK) for key in state if key.startswith(tower + BLOCK)]
    return len({block.split(".")[0] for block in blocks})
