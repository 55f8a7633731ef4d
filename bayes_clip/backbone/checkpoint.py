"""Weights of a whole open_clip model from a file: unwrapped, checked against the model, and loaded.

Nothing in a file is run: tensors are read by safetensors, or by torch with ``weights_only=True``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import convert_state_dict, convert_to_custom_text_state_dict, load_checkpoint
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bayes_clip.backbone.architectures import like
from bayes_clip.errors import UserError

State = dict[str, Tensor]

# Where training programs put the weights in what they save; averaged ones come first, as in timm.
WRAPPERS = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema"),
    *("state_dict", "model_state_dict", "model", "module"),
)
ANCHOR = "logit_scale"  # every CLIP has it, so what stands before it in a name is a wrapper's
COUNTERS = {"n_averaged", "num_updates", "decay", "input_resolution", "context_length", "vocab_size"}
BIG_VISION = (".npz", ".npy")  # SigLIP's own format, which open_clip converts
MOST_NAMED = 3


def read_state(path: Path) -> State:
    """The tensors of a checkpoint by name, without what their training program wrapped them in.

    Taken off: dictionaries such as ``{"state_dict": ...}`` (averaged weights, ``ema``, are preferred, and a
    warning says so), and what all names begin with (``module.``, ``model.``, ``_orig_mod.``).

    Raises:
        UserError: a file that holds something else than tensors, or two models that are equally good.
    """
    found = _unwrapped(read_tensors(path), path)
    state = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path}: no tensors in it; save the model's state_dict()")
    return _one_model(state, path)


def read_tensors(path: Path) -> dict[str, Any]:
    """What a file holds, without running anything in it.

    Raises:
        UserError: neither safetensors nor a torch file of tensors.
    """
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _torch_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({_first_line(error)}); copy it again") from None
    # torch raises UnpicklingError, RuntimeError, EOFError, KeyError... for files that are not its own
    except Exception as error:
        kind = "a TorchScript archive" if "TorchScript" in str(error) else "pickled objects, or damaged"
        raise UserError(
            f"{path}: no file of tensors alone ({kind}; nothing of it was run); save the model's "
            "state_dict() with torch.save, or better as safetensors"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds a {type(found).__name__}; save the model's state_dict() instead")
    return found


def load_into(model: torch.nn.Module, path: Path, name: str) -> None:
    """Put the weights of a file into `model`, an open_clip model of architecture `name`; all must fit.

    Weights of half precision become the model's float32. Positional embeddings are not resized.

    Raises:
        UserError: what `read_state` refuses; weights that are missing, left over, of another shape, or NaN.
    """
    if path.suffix in BIG_VISION:
        _load_big_vision(model, path, name)
        return
    state = _as_named_by(model, read_state(path))
    _check_fit(model.state_dict(), state, path, name)
    model.load_state_dict(state)


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that are NaN or infinite: such come of training, or of storing, in half precision."""
    for name, values in weights.items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise UserError(
                f"{source}: weight '{name}' has NaN or infinite values, as float16 makes of numbers above "
                "65504; save it again from the float32 weights"
            )


def _torch_file(path: Path) -> Any:
    with warnings.catch_warnings():  # of archives it then refuses
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(found: dict[str, Any], path: Path) -> dict[str, Any]:
    for key in WRAPPERS:
        inner = found.get(key)
        if isinstance(inner, dict) and inner:
            if "ema" in key and any(isinstance(found.get(other), dict) for other in WRAPPERS[4:]):
                warnings.warn(f"{path}: its averaged weights ('{key}') are taken", stacklevel=2)
            return _unwrapped(inner, path)
    return found


def _one_model(state: State, path: Path) -> State:
    """The tensors of one model, without what all their names begin with."""
    prefixes = [name.removesuffix(ANCHOR) for name in state if name.split(".")[-1] == ANCHOR]
    if not prefixes or "" in prefixes:
        return {name: value for name, value in state.items() if name not in COUNTERS}
    averaged = [prefix for prefix in prefixes if "ema" in prefix]
    chosen = averaged or prefixes
    if len(chosen) > 1:
        raise UserError(f"{path}: several models in it ({', '.join(chosen)}); save the one you mean alone")
    if len(prefixes) > 1:
        warnings.warn(f"{path}: its averaged weights ('{chosen[0]}') are taken", stacklevel=2)
    others = tuple(prefix for prefix in prefixes if prefix != chosen[0])
    return {
        name.removeprefix(chosen[0]): value
        for name, value in state.items()
        if name not in COUNTERS and not (others and name.startswith(others))
    }


def _as_named_by(model: Any, state: State) -> State:
    """The state as open_clip would convert it: Apple's names, the text tower in its own module, scalars."""
    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for scalar in ("logit_scale", "logit_bias"):
        wanted = getattr(model, scalar, None)
        if wanted is not None and scalar in state and state[scalar].numel() == 1:
            state[scalar] = state[scalar].reshape(wanted.shape)
    if getattr(model, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(model.logit_bias)
    own = model.state_dict()
    # buffers that other versions of open_clip and transformers kept among the weights
    return {key: values for key, values in state.items() if key in own or not key.endswith(NO_WEIGHTS)}


NO_WEIGHTS = ("attn_mask", "position_ids")


def _check_fit(wanted: Mapping[str, Tensor], state: State, path: Path, name: str) -> None:
    missing = [key for key in wanted if key not in state]
    over = [key for key in state if key not in wanted]
    shapes = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if not (missing or over or shapes):
        check_finite(state, str(path))
        return
    reasons = []
    if shapes:
        key = shapes[0]
        reasons.append(f"{key} is {tuple(state[key].shape)}, not {tuple(wanted[key].shape)}")
    reasons += [f"missing {_few(missing)}"] * bool(missing) + [f"unexpected {_few(over)}"] * bool(over)
    raise UserError(f"{path}: these weights do not fit {name} ({'; '.join(reasons)}); {_advice(state, name)}")


def _advice(state: State, name: str) -> str:
    if any(".lora_" in key for key in state):
        return "it holds LoRA weights: name the folder of its adapter_config.json, --pretrained BASE+FOLDER"
    if any(key.startswith(("text_model.", "vision_model.")) for key in state):
        return "it was saved by transformers; save it with open_clip's names"
    others = [other for other in like(state) if other != name]
    if others:
        return f"they are of --backbone {_few(others, ' or ')}"
    return "name the architecture they are of, by --backbone"


def _load_big_vision(model: torch.nn.Module, path: Path, name: str) -> None:
    try:
        load_checkpoint(model, str(path))
    except Exception as error:  # whatever numpy and open_clip's converter raise
        raise UserError(
            f"{path}: these weights do not fit {name} ({_first_line(error)}); name "
            "the architecture they are of"
        ) from None


def _few(names: Iterable[str], joint: str = ", ") -> str:
    listed = list(names)
    more = len(listed) - MOST_NAMED
    return joint.join(listed[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
