"""Finished cells of a comparison, one file each, so that a run that was stopped can go on.

A file is named by the hash of all that decides its content: the task's rows and labels, the settings, the
draw and the versions at work. What is of another run has another name and is never read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.results import Cell, Run
from bayes_clip.settings import FitSettings
from bayes_clip.storage.files import written_whole
from bayes_clip.streaming import request_to_fit

FOLDER = "cells"  # in the folder that the comparison is written to, until it is
ARRAYS = ("probabilities", "labels", "novelty", "epistemic", "ood_novelty", "ood_probabilities")


@dataclass(frozen=True)
class Scored:
    """What a cell came to: its run, and what the user should be told."""

    run: Run
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class KeptCells:
    """Finished cells in a folder."""

    folder: Path

    def clear(self) -> None:
        """Forget what an earlier run left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, name: str) -> Scored | None:
        """The cell of that name; None where it has not finished, or its file is damaged."""
        try:
            with (self.folder / name).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                said = json.loads(str(file["said"]))
                arrays = {array: file[array] for array in ARRAYS if array in file.files}
            return Scored(Run(row=said["row"], **arrays), tuple(said["notes"]))
        except (OSError, ValueError, KeyError, TypeError, BadZipFile):
            return None

    def write(self, name: str, scored: Scored) -> None:
        """Keep a cell: whole, or not at all.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.folder.parent}: cannot be written to ({error.strerror})") from error
        row = {column: _plain(value) for column, value in scored.run.row.items()}
        said = json.dumps({"row": row, "notes": scored.notes})
        arrays = {array: getattr(scored.run, array) for array in ARRAYS}
        present = {array: values for array, values in arrays.items() if values is not None}
        with written_whole(self.folder / name) as temporary, temporary.open("wb") as file:
            np.savez(file, said=np.array(said), **present)


def queried(task: Task) -> str:
    """The hash of what a posterior of `task` is tried on: query rows and labels, rows from elsewhere."""
    digest = hashlib.sha256(json.dumps([task.name, *task.class_names]).encode())
    tried = (task.query_features, task.query_labels, task.query_norms, task.ood_features, task.ood_norms)
    for tensor in tried:
        if tensor is not None:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cell_name(task: Task, settings: FitSettings, shots: int | None, seed: int, tried: str) -> str:
    """The file name of a cell: one fit of a draw of `task`; `tried` is `queried` of it."""
    described: Mapping[str, Cell | None] = {
        "fit": request_to_fit(task, settings),
        "tried": tried,
        "shots": shots,
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:32] + ".npz"


def _plain(value: Cell) -> Cell:
    return value.item() if isinstance(value, np.generic) else value
