"""Fits and updates that go into a folder: one writer at a time, checkpoints on the way, nothing half-written.

Killed at any moment, they leave the old posterior or the new one readable, and go on with ``resume``: what
comes out is bit for bit what an uninterrupted run gives (same machine, versions and number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import as_tensors, hold_out
from bayes_clip.fitting import Fit, fit
from bayes_clip.model import find_model
from bayes_clip.settings import FitSettings
from bayes_clip.storage import folder as storage
from bayes_clip.storage.checkpoint import Checkpoints, pending, remove_checkpoint
from bayes_clip.storage.folder import (
    Made,
    check_posterior,
    check_posterior_folder,
    load_posterior,
    write_posterior,
)
from bayes_clip.storage.lock import locked
from bayes_clip.streaming import Pace, Update, request_to_fit, request_to_update, update

if TYPE_CHECKING:
    from bayes_clip.backbone.encoder import Backbone


def fit_into(
    folder: Path | str,
    task: Task,
    settings: FitSettings,
    *,
    resume: bool = False,
    checkpoint_every: int | None = None,
) -> Fit | None:
    """Fit `task` and keep the posterior in `folder`, with what the support set says of itself held out.

    The filter (engine ekf) writes checkpoints there: one every `checkpoint_every` batches, else as often as
    5 % of the time allows. `resume` goes on from the last one; None where the fit had finished.

    Raises:
        UserError: whatever `fit` refuses, a folder that cannot be written to or is being written to, a
            checkpoint of another run, or checkpoints asked of another engine.
    """
    check_posterior_folder(folder)
    find_model(settings.model)  # before its file is hashed
    streams = settings.engine == "ekf"
    if not streams and (resume or checkpoint_every is not None):
        raise UserError(f"{settings.engine} keeps no checkpoints; leave out --resume and --checkpoint-every")
    with locked(folder) as target:
        made = Made(request_to_fit(task, settings))
        if resume and storage.made_by(target) == made:
            _clear_away(target)
            return None
        checkpoints = None
        if streams:
            checkpoints = Checkpoints(target, made.request, resume=resume, every=checkpoint_every)
        fitted = fit(task, settings, checkpoints)
        write_posterior(fitted.posterior, target, as_tensors(hold_out(task, fitted.posterior)), made)
        _clear_away(target)
        return fitted


def update_into(
    folder: Path | str,
    task: Task | None,
    *,
    out: Path | str | None = None,
    remove: Sequence[str] = (),
    pace: Pace | None = None,
    backbone: Backbone | None = None,
    templates: Sequence[str] | None = None,
    device: str = "cpu",
    resume: bool = False,
    checkpoint_every: int | None = None,
) -> Update | None:
    """`update` the posterior in `folder` in its place, or write the new one to `out` and leave it alone.

    Checkpoints and `resume` as in `fit_into`; they lie where the new posterior goes. What the fit held out
    stays as it is: it dates from the fit (see `holdout.dated`).

    Raises:
        UserError: whatever `update` refuses, and what `fit_into` refuses of folders and checkpoints.
    """
    check_posterior(folder)
    if out is not None:
        check_posterior_folder(out)
    with locked(out or folder) as target:
        request = request_to_update(task, remove, pace, backbone, templates, device)
        made = Made(request, storage.identity_of(folder))
        if resume and _finished(target, made, in_place=target.samefile(folder)):
            _clear_away(target)
            return None
        posterior, held_out = load_posterior(folder, device), storage.load_held_out(folder)
        updated = update(
            posterior,
            task,
            remove=remove,
            pace=pace,
            backbone=backbone,
            templates=templates,
            checkpoints=Checkpoints(target, request, start=made.start, resume=resume, every=checkpoint_every),
        )
        write_posterior(updated.posterior, target, held_out, made)
        _clear_away(target)
        return updated


def _clear_away(target: Path) -> None:
    """Leave the posterior alone in its folder, whatever was stopped before."""
    remove_checkpoint(target)
    storage.clear_away(target)


def _finished(target: Path, made: Made, in_place: bool) -> bool:
    """Whether the posterior in `target` is what the run would make.

    In place the posterior that the run started from is gone when it has finished: then it has, unless the
    same request was begun again from what it made.
    """
    known = storage.made_by(target)
    if not in_place:
        return known == made
    return known.request == made.request and pending(target, made.request) in (None, known.start)
