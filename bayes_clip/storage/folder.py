"""Posterior folders: posterior.json and the safetensors files that it names by hash.

Format 2: one file of tensors (the belief, the text features, and what it takes to add labels), and one of
what was held out, the yardstick of verdicts. Tensors are written first and the JSON renamed into place last,
so that a folder holds either the old posterior or the new one, never a mixture. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.model import find_model, list_models
from bayes_clip.posterior import Posterior, Source
from bayes_clip.settings import FitSettings
from bayes_clip.storage.context import pack_context, unpack_context
from bayes_clip.storage.files import read_tensors, remove_others, write_tensors, write_whole
from bayes_clip.storage.lock import locked
from bayes_clip.storage.packing import fields_of, pack_stream, rebuilt, taken, under, unpack_stream
from bayes_clip.versions import installed_versions

FORMAT = 2
READABLE = (1, 2)  # 1 knew no stream, and did not name the file of what was held out
FIRST_HELD_OUT = "held_out.safetensors"  # its name in format 1
JSON_NAME = "posterior.json"
TENSORS_PREFIX = "posterior"
HELD_OUT_PREFIX = "held_out"
OWN = re.compile(r"\.?(posterior|held_out|checkpoint)[-.].*(json|safetensors|part)")
AGAIN = "fit again"
READINGS = 3  # of a folder that another process is just writing to
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*FAMILIES.values(), Point, Draws, LowRank)}


@dataclass(frozen=True)
class Made:
    """Which run wrote a posterior: the hash of its request, and of the posterior it started from."""

    request: str = ""
    start: str = ""


def save_posterior(posterior: Posterior, folder: Path | str) -> None:
    """Write a posterior into `folder`, made if it is missing; an earlier posterior there is replaced.

    Raises:
        UserError: the folder cannot be written to, is a file, holds something else, or is being written to.
    """
    check_posterior_folder(folder)
    with locked(folder) as target:
        write_posterior(posterior, target)


def write_posterior(
    posterior: Posterior,
    target: Path,
    held_out: Mapping[str, Tensor] | None = None,
    made: Made | None = None,
) -> None:
    """`save_posterior` for who holds the lock of `target`: with what was `held_out`, and the run it is of."""
    source = asdict(posterior.source)
    source["settings"]["model"], program = program_file(posterior.source.settings.model)
    known, described = pack_context(posterior.program.context)
    weights, numbers = fields_of(posterior.weights)
    tensors = {**weights, **known}
    stream = posterior.stream
    if stream is not None:
        tensors |= under("stream", pack_stream(stream))
    entry = write_tensors(target, TENSORS_PREFIX, tensors)
    beside = None if held_out is None else write_tensors(target, HELD_OUT_PREFIX, held_out)
    description = {
        "format": FORMAT,
        **entry,
        "weights": type(posterior.weights).__name__,
        "numbers": numbers,
        "stream": None if stream is None else {"steps": stream.steps, "updates": stream.updates},
        "held_out": beside,
        **described,
        "source": source,
        "program_sha256": program,
        "made": asdict(made or Made()),
        "versions": installed_versions(),
    }
    description["seal"] = _seal(description)
    write_whole(target / JSON_NAME, json.dumps(description, indent=2).encode())
    clear_away(target)


def clear_away(target: Path) -> None:
    """Remove what belongs to no posterior any more; for who holds the lock of `target`, which has one."""
    described = _description(target)
    if described["format"] == 1:
        return
    beside = described["held_out"]
    remove_others(target, TENSORS_PREFIX, described["tensors"])
    remove_others(target, HELD_OUT_PREFIX, None if beside is None else beside["tensors"])
    (target / FIRST_HELD_OUT).unlink(missing_ok=True)


def check_posterior_folder(folder: Path | str) -> None:
    """Refuse, before any work, a folder that a posterior cannot be written to.

    Raises:
        UserError: it is a file, holds something else, or its parent cannot be written to.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UserError(f"{folder}: is a file; give a folder for the posterior")
    foreign = target.is_dir() and any(not OWN.fullmatch(entry.name) for entry in target.iterdir())
    if foreign and not (target / JSON_NAME).is_file():
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
    described, tensors = _read(target)
    sealed = described.get("seal") in (None, _seal(described))  # format 1 and the first of 2 had none
    try:
        source, made_of = described["source"], described["weights"]
        settings = replace(FitSettings(**source.pop("settings")), device=device)
        context = unpack_context(tensors, described, device)
        stream, packed = described.get("stream"), taken("stream", tensors)
        flow = None if stream is None else unpack_stream(packed, stream, device)
        weights = rebuilt(KINDS[made_of], tensors, described.get("numbers", {}), device)
        source["label_counts"] = tuple(source.get("label_counts", ()))
        source = Source(settings=settings, **source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{target / JSON_NAME}: was changed or is incomplete ({error}); {AGAIN}") from error
    if not sealed:
        raise UserError(f"{target / JSON_NAME}: was changed by hand; {AGAIN}")
    _check_program(settings.model, described.get("program_sha256"), target)
    program = find_model(settings.model)
    return Posterior(program(context, source.prior_variance), weights, source, flow)


def _seal(description: Mapping[str, Any]) -> str:
    """The hash of all that the JSON says but this hash itself."""
    said = {name: value for name, value in description.items() if name != "seal"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load_held_out(folder: Path | str) -> dict[str, Tensor] | None:
    """The tensors kept as held out beside a posterior; None where there are none.

    Raises:
        UserError: no posterior there, or a damaged file.
    """
    target = Path(folder)
    described = _description(target)
    if described["format"] == 1:
        path = target / FIRST_HELD_OUT
        try:
            return load(path.read_bytes()) if path.is_file() else None
        except SafetensorError as error:
            raise UserError(f"{path}: was truncated or changed ({error}); {AGAIN}") from error
    entry = described.get("held_out")
    return None if entry is None else read_tensors(target, entry, AGAIN)


def check_posterior(folder: Path | str) -> None:
    """Refuse a folder without a posterior that this version reads; the tensors are not looked at.

    Raises:
        UserError: as `load_posterior`.
    """
    _description(Path(folder))


def made_by(folder: Path | str) -> Made:
    """Which run wrote the posterior in `folder`; a `Made` of nothing where that is not known.

    Raises:
        UserError: a posterior that cannot be read.
    """
    target = Path(folder)
    known = _description(target).get("made") if (target / JSON_NAME).is_file() else None
    return Made(**known) if isinstance(known, dict) else Made()


def identity_of(folder: Path | str) -> str:
    """The hash of the posterior in `folder` as it stands."""
    return hashlib.sha256((Path(folder) / JSON_NAME).read_bytes()).hexdigest()


def program_file(model: str) -> tuple[str, str]:
    """How the program is found from any folder, and the hash of its file (empty for our own)."""
    if not model.endswith(".py"):
        if model not in list_models():
            raise UserError(
                f"{model}: a program given in Python alone cannot be found again; put it in a file, fit "
                "with its path as the model, then save"
            )
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
        raise UserError(f"{path}: does not describe a posterior; {AGAIN}")
    if not isinstance(described.get("format"), int):
        raise UserError(f"{path}: does not describe a posterior; {AGAIN}")
    if described["format"] not in READABLE:
        raise UserError(
            f"{path}: format {described['format']} is newer than {FORMAT}, the last one this version "
            "reads; update bayes_clip"
        )
    return described


def _read(target: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and its tensors; read again where a writer replaced the pair in between."""
    for _ in range(READINGS):
        described = _description(target)
        try:
            return described, read_tensors(target, described, AGAIN)
        except (UserError, FileNotFoundError) as error:
            refusal = error
            if _description(target) == described:
                break
    raise refusal
