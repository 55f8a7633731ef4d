"""Posterior folders: posterior.json and one safetensors file that it names by hash.

The tensors are written first and the JSON renamed into place last, so that a folder holds either the old
posterior or the new one, never a mixture. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import ClassBlock, Diagonal, Full
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.engines import Weights
from bayes_clip.model import Context, find_model
from bayes_clip.posterior import Posterior, Source
from bayes_clip.settings import FitSettings
from bayes_clip.versions import installed_versions

FORMAT = 1
JSON_NAME = "posterior.json"
TENSORS_PREFIX = "posterior-"
KINDS: dict[str, type[Weights]] = {
    kind.__name__: kind for kind in (ClassBlock, Diagonal, Full, Point, Draws, LowRank)
}


def save_posterior(posterior: Posterior, folder: Path | str) -> None:
    """Write a posterior into `folder`, made if it is missing; an earlier posterior there is replaced.

    Raises:
        UserError: the folder cannot be written to, is a file, or holds something else.
    """
    target = Path(folder)
    check_posterior_folder(target)
    source = asdict(posterior.source)
    source["settings"]["model"], program = _program_file(posterior.source.settings.model)
    context = posterior.program.context
    tensors = {**vars(posterior.weights), "text_features": context.text_features}
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    name = f"{TENSORS_PREFIX}{digest[:16]}.safetensors"
    description = {
        "format": FORMAT,
        "tensors": name,
        "sha256": digest,
        "weights": type(posterior.weights).__name__,
        "class_names": list(context.class_names),
        "logit_scale": context.logit_scale,
        "has_text": context.has_text,
        "source": source,
        "program_sha256": program,
        "versions": installed_versions(),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        _write(target / name, content)
        _write(target / JSON_NAME, json.dumps(description, indent=2).encode())
        for old in target.glob(f"{TENSORS_PREFIX}*.safetensors"):
            if old.name != name:
                old.unlink()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error


def check_posterior_folder(folder: Path | str) -> None:
    """Refuse, before any work, a folder that a posterior cannot be written to.

    Raises:
        UserError: it is a file, holds something else, or its parent cannot be written to.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UserError(f"{folder}: is a file; give a folder for the posterior")
    if target.is_dir() and any(target.iterdir()) and not (target / JSON_NAME).is_file():
        raise UserError(f"{folder}: holds something else; give a new folder for the posterior")
    parent = next(place for place in (target, *target.resolve().parents) if place.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: {parent} cannot be written to; give another --out")


def load_posterior(folder: Path | str, device: str = "cpu") -> Posterior:
    """Read a posterior; on a machine without the GPU it was fitted on as well.

    Raises:
        UserError: no posterior there, a newer format, or a file that was truncated or changed.
    """
    target = Path(folder)
    described = _description(target)
    if described.get("format") != FORMAT:
        raise UserError(
            f"{target / JSON_NAME}: format {described.get('format')} is not {FORMAT}, the one this version "
            "reads; update bayes_clip"
        )
    tensors = _tensors(target, described)
    try:
        source = described["source"]
        settings = replace(FitSettings(**source.pop("settings")), device=device)
        text = tensors.pop("text_features").to(device)
        names = tuple(described["class_names"])
        context = Context(text, names, described["logit_scale"], described["has_text"])
        kind = KINDS[described["weights"]]
        weights = kind(**{name: tensor.to(device) for name, tensor in tensors.items()})
        source = Source(settings=settings, **source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{target / JSON_NAME}: was changed or is incomplete ({error}); fit again") from error
    _check_program(settings.model, described.get("program_sha256"), target)
    program = find_model(settings.model)
    return Posterior(program(context, source.prior_variance), weights, source)


def _program_file(model: str) -> tuple[str, str]:
    """How the program is found from any folder, and the hash of its file (empty for our own)."""
    if not model.endswith(".py"):
        return model, ""
    path = Path(model).resolve()
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def _check_program(model: str, digest: str | None, target: Path) -> None:
    """Refuse a posterior whose program is gone or no longer the one it was fitted with."""
    if not digest:
        return
    path = Path(model)
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise UserError(f"{target}: was fitted with {model}, which is gone or changed since; fit again")


def _description(target: Path) -> dict[str, Any]:
    path = target / JSON_NAME
    if not path.is_file():
        raise UserError(f"{target}: no posterior there (no {JSON_NAME}); make one with 'bayes-clip fit'")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is no JSON ({error}); fit again") from error
    if not isinstance(described, dict):
        raise UserError(f"{path}: does not describe a posterior; fit again")
    return described


def _tensors(target: Path, described: dict[str, Any]) -> dict[str, Tensor]:
    path = target / Path(str(described.get("tensors"))).name
    if not path.is_file():
        raise UserError(f"{path}: is missing; fit again")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != described.get("sha256"):
        raise UserError(f"{path}: was truncated or changed (its hash differs from {JSON_NAME}); fit again")
    tensors: dict[str, Tensor] = load(content)
    return tensors


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name beside it, then rename."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
