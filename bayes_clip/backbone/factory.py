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

from bayes_clip.errors import UserError, nearest

SCHEMAS = ("hf-hub:", "local-dir:")  # names by which open_clip finds config and weights together
CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg")

# Names this package taught to open_clip, with the file of each: the registry there is one for all.
_registered: dict[str, Path] = {}


@dataclass(frozen=True)
class Parts:
    """What open_clip makes of a name: the model, its preprocessing of one picture, and its tokenizer."""

    name: str  # as open_clip lists it
    model: Any  # open_clip.CLIP or a kindred class
    preprocess: Callable[[Any], Tensor]
    preprocessing: dict[str, Any]  # size, mean, std, interpolation, resize mode
    tokenize: Callable[[list[str]], Tensor]


def register_config(path: Path) -> str:
    """Teach open_clip the architecture in the JSON file `path`; returns its name, the file's stem.

    Raises:
        UserError: no such file, no open_clip config, or a name that another model bears already.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such open_clip config; check the path")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no JSON ({error}); give an open_clip model config") from None
    if not isinstance(config, dict) or any(key not in config for key in CONFIG_KEYS):
        raise UserError(f"{path}: not an open_clip model config; it needs {', '.join(CONFIG_KEYS)}")
    name, resolved = path.stem, path.resolve()
    if name in open_clip.list_models() and _registered.get(name) != resolved:
        raise UserError(f"{path}: open_clip knows another model by the name '{name}'; rename the file")
    if name not in _registered:
        open_clip.add_model_config(resolved)
        _registered[name] = resolved
    return name


def create(
    name: str, pretrained: str | None, device: str, preprocessing: dict[str, Any] | None = None
) -> Parts:
    """Build an open_clip model with weights, in float32 and evaluation mode.

    `name` is an architecture that open_clip lists (``/`` read as ``-``), a JSON config file of one, or
    ``hf-hub:...`` or ``local-dir:...`` with weights of their own; `pretrained` is a tag or a checkpoint file;
    `preprocessing` may overrule ``image_mean``, ``image_std``, ``image_interpolation`` and
    ``image_resize_mode``.

    Raises:
        UserError: unknown architecture, tag, file or device; a failed download; weights that do not fit.
    """
    check_device(device)
    if name.endswith(".json"):
        name = register_config(Path(name))
    if not name.startswith(SCHEMAS):
        name = name.replace("/", "-")
        _check_architecture(name)
        _check_pretrained(name, pretrained)
    try:
        with _quiet():
            model, _, preprocess = open_clip.create_model_and_transforms(
                name, pretrained=pretrained, device=device, **(preprocessing or {})
            )
            tokenize = open_clip.get_tokenizer(name)
    # open_clip, the hub and torch raise whatever they like for a failed download or foreign weights
    except Exception as error:
        raise UserError(_what_went_wrong(name, pretrained, error)) from error
    model = model.eval().requires_grad_(False)
    return Parts(name, model, preprocess, dict(open_clip.get_model_preprocess_cfg(model)), tokenize)


def check_device(device: str) -> None:
    """Refuse a device that torch does not know or this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {device}: not available here ({reason}); use --device cpu") from None


def _check_architecture(name: str) -> None:
    known = open_clip.list_models()
    if name not in known:
        hint = nearest(name, known) or " open_clip.list_models() lists them."
        raise UserError(f"--backbone {name}: open_clip has no such model.{hint}")


def _check_pretrained(name: str, pretrained: str | None) -> None:
    tags = open_clip.list_pretrained_tags_by_model(name)
    there_are = f"tags of {name}: {', '.join(tags)}" if tags else f"there are no tags for {name}"
    if pretrained is None:
        raise UserError(f"--backbone {name}: no weights named; add --pretrained TAG or FILE ({there_are})")
    if open_clip.is_pretrained_cfg(name, pretrained) or Path(pretrained).is_file():
        return
    hint = nearest(pretrained, tags)
    raise UserError(f"--pretrained {pretrained}: neither a tag nor a checkpoint file ({there_are}).{hint}")


def _what_went_wrong(name: str, pretrained: str | None, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    if "transformers" in reason and isinstance(error, (ImportError, AssertionError, RuntimeError)):
        return f"--backbone {name}: its text tower needs another package ({reason}); pip install transformers"
    if pretrained is not None and Path(pretrained).is_file():
        return f"{pretrained}: these weights do not fit {name} ({reason}); name the architecture they are of"
    return (
        f"--backbone {name} {pretrained or ''}: its weights could not be fetched or loaded ({reason}); "
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
