"""open_clip models by name, with every failure turned into one line that says what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from bayes_clip.backbone.checkpoint import check_finite, load_into
from bayes_clip.backbone.hub import hub_reachable
from bayes_clip.backbone.lora import merge_adapter
from bayes_clip.backbone.naming import FOLDER, HUB, Weights, find_weights, open_clip_name, read_folder_config
from bayes_clip.errors import UserError

PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")  # what a tag says of it


@dataclass(frozen=True)
class Parts:
    """What open_clip makes of a name: the model, its preprocessing of one picture, and its tokenizer."""

    name: str  # as open_clip lists it
    identity: str  # what stands for the architecture in a fingerprint: the name; of a folder, its config
    asked: str  # from which it can be loaded again, from any folder
    pretrained: str | None  # likewise
    model: Any  # open_clip.CLIP or a kindred class
    preprocess: Callable[[Any], Tensor]
    preprocessing: dict[str, Any]  # size, mean, std, interpolation, resize mode
    tokenize: Callable[[list[str]], Tensor]


def create(
    name: str, pretrained: str | None, device: str, preprocessing: dict[str, Any] | None = None
) -> Parts:
    """Build an open_clip model with weights, in float32 and evaluation mode.

    `name` is an architecture that open_clip lists (``/`` read as ``-``), a JSON config file of one, a folder
    with ``open_clip_config.json`` and weights (also ``local-dir:...``), or ``hf-hub:...``; `pretrained` as
    `find_weights` reads it. `preprocessing` may overrule ``image_mean``, ``image_std``,
    ``image_interpolation`` and ``image_resize_mode``; a checkpoint file is seen as the architecture's tags
    are, where they agree.

    Raises:
        UserError: unknown architecture, tag, file or device; a failed download; weights that do not fit.
    """
    check_device(device)
    asked, name = name, open_clip_name(name)
    weights = find_weights(name, pretrained)
    if weights.file is not None:
        preprocessing = {**agreed_preprocessing(name), **(preprocessing or {})}
    model, preprocess, tokenize = _built(name, weights, device, preprocessing or {})
    if weights.file is not None:
        load_into(model, weights.file, name)
    if weights.adapter is not None:
        merge_adapter(model, weights.adapter, name)
    model = model.float().eval().requires_grad_(False)
    check_finite(model.state_dict(), f"{name} {weights}".strip())
    return Parts(
        name=name,
        identity=_identity(name),
        asked=str(Path(asked).resolve()) if asked.endswith(".json") and not name.startswith(FOLDER) else name,
        pretrained=str(weights) or None,
        model=model,
        preprocess=preprocess,
        preprocessing=dict(open_clip.get_model_preprocess_cfg(model)),
        tokenize=tokenize,
    )


def agreed_preprocessing(name: str) -> dict[str, Any]:
    """How all tags of an architecture see pictures, for open_clip's factory; empty where they differ."""
    configs = [
        open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)
    ]
    ways = [{f"image_{key}": config[key] for key in PREPROCESSING if key in config} for config in configs]
    return ways[0] if ways and all(way == ways[0] for way in ways) else {}


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device}: not available here ({reason}); use --device cpu") from None


def _built(
    name: str, weights: Weights, device: str, preprocessing: dict[str, Any]
) -> tuple[Any, Callable[[Any], Tensor], Callable[[list[str]], Tensor]]:
    """Model, preprocessing and tokenizer; weights of a tag or of the hub are fetched and loaded.

    Nothing is left at its random start: without the weights asked for open_clip fails here.
    """
    fetched = weights.file is None
    try:
        with _quiet(), hub_reachable(needed=fetched or name.startswith(HUB)):
            model, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=weights.tag,
                device=device,
                load_weights=fetched,
                require_pretrained=fetched,
                pretrained_text=False,
                **preprocessing,
            )
            return model, preprocess, open_clip.get_tokenizer(name)
    # open_clip, the hub and torch raise whatever they like for a failed download or foreign weights
    except Exception as error:
        raise UserError(_what_went_wrong(name, weights, error)) from error


def _identity(name: str) -> str:
    if not name.startswith(FOLDER):
        return name
    config = read_folder_config(Path(name.removeprefix(FOLDER)))["model_cfg"]
    return FOLDER + json.dumps(config, sort_keys=True)  # a folder that is moved stays what it is


def _what_went_wrong(name: str, weights: Weights, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rpartition("Last error: ")[2][:200]
    if "transformers" in reason and isinstance(error, (ImportError, AssertionError, RuntimeError)):
        return f"--backbone {name}: its text tower needs another package ({reason}); pip install transformers"
    if weights.file is not None:
        return f"--backbone {name}: cannot be built ({reason}); correct its config"
    if name.startswith(HUB):
        model = name.removeprefix(HUB)
        return (
            f"--backbone {name}: could not be fetched or loaded ({reason}); check name and network, or "
            f"fetch it elsewhere (hf download {model} --local-dir FOLDER) and give --backbone FOLDER"
        )
    return (
        f"--backbone {name} {weights}: its weights could not be fetched or loaded ({reason}); "
        "check the network, or give a checkpoint file you have with --pretrained FILE"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip and the hub from logging what the exception will say again."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(previous)
