"""Checkpoints: where a run stands, kept in the folder that it will write its posterior to.

A checkpoint is checkpoint.json and a tensor file that it names by hash; the JSON is renamed into place last.
Readers of posteriors do not look at it. It belongs to one request (labels, settings, versions) and is removed
when the posterior is written. Killed at any moment, a run loses what came after its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.inference.drift import Drift, TriedNoise
from bayes_clip.inference.stream import Cursor
from bayes_clip.storage.files import read_tensors, remove_others, write_tensors, write_whole
from bayes_clip.storage.packing import fields_of, pack_sites, rebuilt, taken, under, unpack_sites
from bayes_clip.tuning import Candidate, Tuned
from bayes_clip.versions import installed_versions

FORMAT = 1
PREFIX = "checkpoint"
JSON_NAME = f"{PREFIX}.json"
SHARE = 20  # a checkpoint is due after 20 times what writing one costs: 5 % of the time at most
SOONEST = 1.0  # seconds; what is lost sooner is not worth a file
BYTES_PER_SECOND = 1e8  # of writing, until the first one has been timed
ANEW = "leave --resume out to begin anew"


def request_of(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The hash of all that decides a result: what was asked for, the labels, and the versions at work."""
    known = json.dumps({**described, "versions": installed_versions()}, sort_keys=True, default=str)
    digest = hashlib.sha256(known.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of one run in `folder`, which the caller has locked.

    Args:
        request: `request_of` the run.
        start: what the run starts from (the hash of a posterior; empty for a fit).
        resume: go on from the checkpoint that is there, if there is one.
        every: write one every so many batches; unless given, as often as 5 % of the time allows.

    Raises:
        UserError: asked to resume, and the checkpoint there is damaged or of another run.
    """

    def __init__(
        self, folder: Path, request: str, *, start: str = "", resume: bool = False, every: int | None = None
    ) -> None:
        self.folder, self.every = folder, every
        self._owner = {"format": FORMAT, "request": request, "start": start}
        self._described: dict[str, Any] = {}
        self._tensors: dict[str, Tensor] = {}
        if resume and (folder / JSON_NAME).is_file():
            self._read()
        self._since, self._batches, self._cost = time.monotonic(), 0, 0.0

    @property
    def resumed(self) -> bool:
        """Whether there are batches that this run need not feed again."""
        return bool(self._tensors)

    @property
    def tuned(self) -> Tuned | None:
        """What was chosen before the first batch, where an earlier run got as far as that."""
        found = self._described.get("tuned")
        if found is None:
            return None
        profile = tuple(Candidate(**candidate) for candidate in found["profile"])
        return Tuned(found["prior_variance"], found["covariance_scale"], profile)

    def keep_tuned(self, tuned: Tuned) -> None:
        """Write down what was chosen, so that a resumed run need not choose again."""
        self._described["tuned"] = asdict(tuned)
        self._describe()

    @property
    def drift(self) -> Drift | None:
        """How the process noise was chosen, where it was and an earlier run got as far as that."""
        found = self._described.get("drift")
        if found is None:
            return None
        return Drift(found["process_noise"], tuple(TriedNoise(**tried) for tried in found["profile"]))

    def keep_drift(self, drift: Drift) -> None:
        """Write down how the process noise was chosen."""
        self._described["drift"] = asdict(drift)
        self._describe()

    def cursor(self, beginning: Cursor) -> Cursor:
        """Where to go on: the checkpoint's cursor, or the `beginning` of the run.

        Raises:
            UserError: the checkpoint was changed.
        """
        if not self.resumed:
            self._describe()  # says that the run has begun, and ends what an earlier one left
            return beginning
        tensors = dict(self._tensors)
        device = str(beginning.state.belief.mean.device)
        try:
            where = self._described["cursor"]
            sites = unpack_sites(taken("sites", tensors), device)
            noise = tensors.pop("observation_noise", beginning.state.noise)
            noise = None if noise is None else noise.to(device)
            belief = rebuilt(type(beginning.state.belief), tensors, where["numbers"], device)
            state = replace(beginning.state, belief=belief, steps=where["steps"], noise=noise)
            return Cursor(state, sites, where["sweep"], where["index"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.folder / JSON_NAME}: was changed ({error}); {ANEW}") from error

    def reached(self, cursor: Cursor) -> None:
        """Called after every batch: writes a checkpoint if one is due."""
        self._batches += 1
        if self._is_due(cursor):
            self.write(cursor)

    def write(self, cursor: Cursor) -> None:
        """Write one now."""
        begun = time.monotonic()
        belief, numbers = fields_of(cursor.state.belief)
        tensors = {**belief, **under("sites", pack_sites(cursor.sites))}
        if cursor.state.noise is not None:
            tensors["observation_noise"] = cursor.state.noise
        entry = write_tensors(self.folder, PREFIX, tensors)
        where = {
            "steps": cursor.state.steps,
            "sweep": cursor.sweep,
            "index": cursor.index,
            "numbers": numbers,
        }
        self._described |= {**entry, "cursor": where}
        self._describe()
        self._since, self._batches = time.monotonic(), 0
        self._cost = self._since - begun

    def _is_due(self, cursor: Cursor) -> bool:
        if self.every is not None:
            return self._batches >= self.every
        cost = self._cost or _size(cursor) / BYTES_PER_SECOND
        return time.monotonic() - self._since >= max(SOONEST, SHARE * cost)

    def _describe(self) -> None:
        content = json.dumps({**self._owner, **self._described}, indent=2).encode()
        write_whole(self.folder / JSON_NAME, content)
        remove_others(self.folder, PREFIX, self._described.get("tensors"))

    def _read(self) -> None:
        path = self.folder / JSON_NAME
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            owner = {name: found.pop(name) for name in self._owner}
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); {ANEW}") from error
        if owner != self._owner:
            raise UserError(
                f"{path}: is of another run (other labels, settings or versions); "
                f"repeat that command, or {ANEW}"
            )
        self._described = found
        if "tensors" in found:
            self._tensors = read_tensors(self.folder, found, ANEW)


def pending(folder: Path, request: str) -> str | None:
    """What the run of `request` that has begun in `folder` and not finished starts from; None if none has."""
    try:
        found = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        return str(found["start"]) if found["request"] == request else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_checkpoint(folder: Path) -> None:
    """Leave nothing of a checkpoint in `folder`: the posterior is written."""
    (folder / JSON_NAME).unlink(missing_ok=True)
    remove_others(folder, PREFIX, None)


def _size(cursor: Cursor) -> int:
    """Bytes that a checkpoint of `cursor` would take."""
    tensors = [*fields_of(cursor.state.belief)[0].values()]
    for site in cursor.sites:
        tensors += fields_of(site)[0].values()
    return sum(tensor.nbytes for tensor in tensors)
