"""LoRA adapters as PEFT saves them, merged into the weights of an open_clip model.

A folder holds ``adapter_config.json`` and ``adapter_model.safetensors`` (or ``.bin``). Every changed map W
(out, in) becomes W + s B A, with A (r, in), B (out, r) and s = alpha / r (``use_rslora``: alpha / sqrt(r)),
as LoRA's authors define it (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732).

Supported: ``torch.nn.Linear`` anywhere in the model, and ``torch.nn.MultiheadAttention``, whose joint map of
queries, keys and values (3 W, W) PEFT changes as ``<name>.attn.lora_A`` and whose output map as
``<name>.attn.base_layer.out_proj.lora_A``. That output map PEFT up to 0.21 changes by 2 s B A, in training as
well (huggingface/peft, pull request 3774), so it is doubled here too: an adapter acts as it was trained.
Convolutions, embeddings, bare parameters (``visual.proj``, ``text_projection``), whole modules saved beside
(``modules_to_save``), biases and DoRA are refused by name.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayes_clip.backbone.checkpoint import check_finite, read_tensors
from bayes_clip.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."  # of every name that PEFT saves
# settings under which the change is not s B A, or the weights it belongs to are not the base's
OTHER_METHODS = (
    *("use_dora", "use_qalora", "use_bdlora", "kasa_config", "monteclora_config", "arrow_config"),
    *("alora_invocation_tokens", "layer_replication", "fan_in_fan_out", "modules_to_save"),
    "target_parameters",
)
OUTPUT_MAP = ".base_layer.out_proj"
COUNTS_OUTPUT_TWICE = (0, 21)  # the last release of PEFT known to
STARTS_THAT_KEEP_THE_BASE = ("gaussian", "eva", "orthogonal")  # besides true and false


@dataclass(frozen=True)
class LowRank:
    """The change s B A of one map."""

    down: Tensor  # A (r, in)
    up: Tensor  # B (out, r)
    scale: float  # s

    @property
    def product(self) -> Tensor:
        """The change (out, in) in float64."""
        return self.scale * (self.up.double() @ self.down.double())


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds a PEFT adapter."""
    return (folder / CONFIG).is_file()


def merge_adapter(model: nn.Module, folder: Path, name: str) -> None:
    """Add the changes of a LoRA folder to the weights of `model` (of architecture `name`), in place.

    Products are made in float64 and rounded once, to the dtype of the weight.

    Raises:
        UserError: no adapter, another method than LoRA, a layer that is not there, of another shape or kind.
    """
    config = _config(folder)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: has {CONFIG} and no {WEIGHTS[0]}; copy it there")
    changes = read_changes(read_tensors(file), config, file)
    targets = {layer: _weight(model, layer, change, file, name) for layer, change in changes.items()}
    with torch.no_grad():
        for layer, weight in targets.items():
            weight.copy_((weight.double() + changes[layer].product).to(weight))


def read_changes(found: Mapping[str, Any], config: Mapping[str, Any], file: Path) -> dict[str, LowRank]:
    """Changes by the layer's name in the model; `found` are the tensors of `file`."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, values in found.items():
        match = re.fullmatch(rf"(?:{re.escape(PREFIX)})?(.+)\.lora_([AB])(?:\.default)?\.weight", key)
        if match is None or values.ndim != 2:
            raise UserError(
                f"{file}: '{key}' is no low-rank change of a linear layer; train LoRA on linear and "
                "attention layers alone, or merge it yourself (merge_and_unload) and save the state_dict"
            )
        parts.setdefault(match[1], {})[match[2]] = values
    check_finite(found, str(file))
    return {layer: _change(layer, pair, config, file) for layer, pair in parts.items()}


def _change(layer: str, pair: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> LowRank:
    if {*pair} != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
        shapes = {f"lora_{side}": tuple(part.shape) for side, part in pair.items()}
        raise UserError(f"{file}: {layer} has {shapes}; it needs lora_A (r, in) and lora_B (out, r)")
    rank, module = pair["A"].shape[0], layer.removesuffix(OUTPUT_MAP)
    alpha = next(
        (value for pattern, value in (config.get("alpha_pattern") or {}).items() if _is_of(pattern, module)),
        config["lora_alpha"],
    )
    times = _times_of_output(config, file) if module != layer else 1
    return LowRank(pair["A"], pair["B"], times * alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _times_of_output(config: Mapping[str, Any], file: Path) -> int:
    """How often the PEFT that trained an adapter counts the change of an attention's output map."""
    version = re.match(r"(\d+)\.(\d+)", str(config.get("peft_version") or "0.0"))
    if version is None or (int(version[1]), int(version[2])) <= COUNTS_OUTPUT_TWICE:
        return 2
    warnings.warn(
        f"{file}: changes of attention outputs are counted once; PEFT up to 0.21 counts them twice, of "
        f"{version[0]} it is not known here: compare features with those of your training program",
        stacklevel=2,
    )
    return 1


def _is_of(pattern: str, module: str) -> bool:
    """Whether PEFT's `alpha_pattern` means this module: a regular expression for the end of its name."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); name a folder that PEFT saved") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise UserError(f"{file}: peft_type is {kind}; LORA alone can be merged into the weights")
    if isinstance(config.get("lora_alpha"), bool) or not isinstance(config.get("lora_alpha"), int | float):
        raise UserError(f"{file}: lora_alpha is {config.get('lora_alpha')!r}; it must be a number")
    start = config.get("init_lora_weights", True)
    other = next((key for key in OTHER_METHODS if config.get(key)), None)
    if not isinstance(start, bool) and start not in STARTS_THAT_KEEP_THE_BASE:
        other = "init_lora_weights"
    if config.get("bias", "none") != "none":
        other = "bias"
    if other is not None:
        raise UserError(
            f"{file}: {other} is {config[other]!r}, under which a change is not alpha/r B A on these "
            "weights; merge it yourself (merge_and_unload), save the state_dict, and give that file"
        )
    return config


def _weight(model: nn.Module, layer: str, change: LowRank, file: Path, name: str) -> Tensor:
    """The weight (out, in) that a change belongs to."""
    path = layer.replace(".base_layer", "")
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise UserError(
            f"{file}: {name} has no layer '{path}'; name the model that the adapter was trained on, with "
            "open_clip's names"
        ) from None
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        weight: Tensor = module.in_proj_weight
    elif isinstance(module, nn.Linear):
        weight = module.weight
    else:
        raise UserError(
            f"{file}: '{path}' is a {type(module).__name__}; only Linear and MultiheadAttention layers "
            "can be changed by LoRA here"
        )
    shape = (change.up.shape[0], change.down.shape[1])
    if weight.shape != shape:
        raise UserError(
            f"{file}: the change of '{path}' is {shape} and the weight of {name} {tuple(weight.shape)}; name "
            "the model that the adapter was trained on"
        )
    return weight
