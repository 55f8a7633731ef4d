"""What open_clip offers: architectures with their tags, sizes and parameters, without fetching anything."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch

from bayes_clip.backbone import pocket
from bayes_clip.backbone.hub import hub_reachable
from bayes_clip.errors import UserError, nearest

COUNTS = Path(__file__).with_name("parameter_counts.json")  # made by analysis/backbone_parameters.py
EMBEDDED = "embedded"
MOST_COUNTED = 3  # architectures whose parameters are counted afresh in one listing; each takes seconds


@dataclass(frozen=True)
class Offer:
    """One architecture, or `pocket_clip`."""

    name: str
    tags: tuple[str, ...]  # of weights
    image_size: str  # of its pictures: "224", or "256x128" (height, width)
    feature_dim: int  # D
    parameters: float | None  # of both towers, in millions; None where only counting afresh would tell


def list_backbones(word: str = "") -> list[Offer]:
    """Every architecture whose name or tags contain `word`, ``pocket_clip`` first.

    Sizes come from the configs. Parameters were counted on torch's meta device, which allocates nothing, and
    are kept beside this file with a digest of the config; where that differs, or there is none, they are
    counted here, if the listing is short. Text towers of Hugging Face cannot be counted without the network.

    Raises:
        UserError: nothing contains `word`.
    """
    names = [name for name in open_clip.list_models() if name != pocket.NAME]
    tags = {name: tuple(open_clip.list_pretrained_tags_by_model(name)) for name in names}
    wanted = word.strip().lower()
    found = [name for name in names if any(wanted in part.lower() for part in (name, *tags[name]))]
    offers = [_embedded()] if wanted in pocket.NAME or wanted in EMBEDDED else []
    if not found and not offers:
        raise UserError(
            f"{word}: no name or tag of a backbone contains it; try another word or none."
            f"{nearest(word, names)}"
        )
    configs = {name: open_clip.get_model_config(name) or {} for name in found}
    unknown = [name for name in found if _kept(name, configs[name]) is None]
    counted = {name: count_parameters(name) for name in unknown} if len(unknown) <= MOST_COUNTED else {}
    for name in found:
        count = _kept(name, configs[name]) or counted.get(name)
        offers.append(_offer(name, tags[name], configs[name], count))
    return offers


def count_parameters(name: str) -> int | None:
    """The parameters of an architecture, built on the meta device; None where its parts must be fetched."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with hub_reachable(needed=True), torch.device("meta"):
            model = open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta")
    except Exception:  # transformers is missing, or the network is
        return None
    finally:
        logging.disable(previous)
    return sum(parameter.numel() for parameter in model.parameters())


def digest(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of a config, to tell whether a kept count is still of it."""
    return hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode()).hexdigest()[:8]


def _offer(name: str, tags: tuple[str, ...], config: Mapping[str, Any], count: int | None) -> Offer:
    size = config["vision_cfg"].get("image_size", 224)
    shown = str(size) if isinstance(size, int) else "x".join(str(side) for side in size)
    return Offer(name, tags, shown, config["embed_dim"], None if count is None else count / 1e6)


def _embedded() -> Offer:
    from safetensors import safe_open

    folder = pocket.pocket_folder()
    config = json.loads(pocket.config_file(folder).read_text(encoding="utf-8"))
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    with safe_open(pocket.weights_file(folder), "pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys() if not key.endswith(buffers)]  # noqa: SIM118
    return _offer(pocket.NAME, (EMBEDDED,), config, sum(torch.Size(shape).numel() for shape in shapes))


def _kept(name: str, config: Mapping[str, Any]) -> int | None:
    entry = _counts().get(name)
    return entry["parameters"] if entry is not None and entry["config"] == digest(config) else None


@cache
def _counts() -> dict[str, Any]:
    return json.loads(COUNTS.read_text(encoding="utf-8"))["models"]
