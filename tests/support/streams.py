"""A task in pieces, as a stream brings it, and what two posteriors or folders have in common."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_problems import tiny_task

from bayes_clip.data.task import Task
from bayes_clip.posterior import Posterior
from bayes_clip.settings import FitSettings
from bayes_clip.storage.packing import fields_of, pack_stream

TASK = tiny_task(shots=8, features=5)  # 24 rows of 3 classes
STEADY: dict[str, Any] = {  # settings under which nothing is chosen from the first piece alone
    "order": "given",
    "batch_size": 4,
    "prior_variance": 0.02,
    "predictive": "plug_in",
    "rule": "plain",
}


def steady(**changes: Any) -> FitSettings:
    """Settings of a fit that pieces can repeat bit for bit."""
    return FitSettings(**{**STEADY, **changes})


def piece(first: int, last: int, task: Task = TASK, *, partial: bool = True) -> Task:
    """Rows `first` to `last` (exclusive) of the support set."""
    return replace(
        task,
        support_features=task.support_features[first:last],
        support_labels=task.support_labels[first:last],
        support_norms=None,
        is_partial=partial,
    )


def tensors_of(posterior: Posterior) -> dict[str, torch.Tensor]:
    """Every tensor that a posterior's folder holds."""
    assert posterior.stream is not None
    weights, _ = fields_of(posterior.weights)
    return {**weights, "text": posterior.program.text_features, **pack_stream(posterior.stream)}


def assert_equal(one: Posterior, other: Posterior) -> None:
    """The same tensors, to the last bit."""
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


def described(folder: Path) -> dict[str, Any]:
    """What posterior.json says."""
    return json.loads((folder / "posterior.json").read_text())


def stored(folder: Path) -> str:
    """The hash of the tensor file: equal where two folders hold the same bytes."""
    return str(described(folder)["sha256"])
