"""pocket_clip, the embedded backbone: where it lies, how it sees, and which words it knows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bayes_clip.errors import UserError
from bayes_clip.resources import models_folder

NAME = "pocket_clip"
WORD = re.compile(r"[a-z0-9]+")  # as the captions it was trained on were cut into words


def pocket_folder() -> Path:
    """The folder of config, weights and vocabulary.

    Raises:
        UserError: it is not there or not complete.
    """
    folder = models_folder() / NAME
    for name in (config_file(folder), weights_file(folder), folder / "vocabulary.json"):
        if not name.is_file():
            raise UserError(
                f"{name}: missing, so pocket_clip cannot be loaded; reinstall, or name a --backbone"
            )
    return folder


def config_file(folder: Path) -> Path:
    """The open_clip model config."""
    return folder / f"{NAME}.json"


def weights_file(folder: Path) -> Path:
    """The weights, float16 safetensors."""
    return folder / f"{NAME}.safetensors"


def preprocessing(folder: Path) -> dict[str, Any]:
    """What ``preprocess.json`` sets otherwise than open_clip, as arguments of its factory."""
    settings = _json(folder / "preprocess.json") or {}
    return {
        f"image_{key}": settings[key]
        for key in ("mean", "std", "interpolation", "resize_mode")
        if key in settings
    }


def default_templates(folder: Path) -> tuple[str, ...] | None:
    """The templates of ``templates.json``, or None where there is no such file."""
    templates = _json(folder / "templates.json")
    return None if templates is None else tuple(templates)


def vocabulary(folder: Path) -> frozenset[str]:
    """The words of the captions that pocket_clip was trained on."""
    return frozenset(_json(folder / "vocabulary.json"))


def unknown_words(prompts: Iterable[str], known: frozenset[str]) -> list[str]:
    """Words of `prompts` that are not in `known`, each once, in order of appearance."""
    words = (word for prompt in prompts for word in WORD.findall(prompt.lower()))
    return [word for word in dict.fromkeys(words) if word not in known]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
