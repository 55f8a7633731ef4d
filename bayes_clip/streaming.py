"""More labels for a posterior, new classes and classes that go: no fit is repeated.

A posterior of the filter (engine ekf) carries its belief, its prior and the number of batches seen, which is
all that a one-pass rule needs: an update costs the same however many labels came before. Fitted with several
passes it also carries its rows and what each batch said (N F + 2 N C numbers for batches of one), so that
later passes sweep over old and new labels together.

Prior variance, covariance scale, rule, covariance and dynamics stay those of the fit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_clip.class_changes import Matched, add_classes, match_classes, remove_class
from bayes_clip.data.encode import encode_class_names
from bayes_clip.data.task import DEFAULT_LOGIT_SCALE, Task
from bayes_clip.errors import UserError
from bayes_clip.inference.feeding import feed
from bayes_clip.inference.kalman import StepInfo
from bayes_clip.inputs import inputs_of
from bayes_clip.posterior import Posterior
from bayes_clip.precision import full_precision
from bayes_clip.settings import FitSettings
from bayes_clip.storage.checkpoint import Checkpoints, request_of
from bayes_clip.storage.folder import program_file

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Backbone


@dataclass(frozen=True)
class Pace:
    """How new labels are fed; None is as in the fit.

    Raises:
        UserError: a value that `FitSettings` refuses.
    """

    order: str | None = None
    batch_size: int | None = None
    passes: int | None = None
    block_size: int | None = None

    def settings(self, fitted: FitSettings) -> FitSettings:
        """The fit's settings at this pace."""
        return replace(fitted, **{name: value for name, value in asdict(self).items() if value is not None})


@dataclass(frozen=True)
class Update:
    """A posterior that has learned more, and what happened."""

    posterior: Posterior
    rows: int  # labels learned
    added: tuple[str, ...]  # classes
    removed: tuple[str, ...]
    steps: tuple[StepInfo, ...]  # of the last pass; empty where an earlier process saw some of the batches
    seconds: float
    notes: tuple[str, ...]  # what the user should be told

    def __repr__(self) -> str:
        changes = [f"{self.rows} labels"]
        changes += [f"classes added: {', '.join(self.added)}"] if self.added else []
        changes += [f"classes removed: {', '.join(self.removed)}"] if self.removed else []
        return f"Update({', '.join(changes)}: {self.posterior!r}, {self.seconds:.2f} s)"


@torch.no_grad()
@full_precision()
def update(
    posterior: Posterior,
    task: Task | None = None,
    *,
    remove: Sequence[str] = (),
    pace: Pace | None = None,
    backbone: Backbone | None = None,
    templates: Sequence[str] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Update:
    """Learn the support rows of `task`; classes `remove` go first. `posterior` itself does not change.

    Labels are matched by class name, else by number. A class that the posterior does not know enters at its
    prior: around its text feature (from the task, else its name encoded by `backbone` with `templates`),
    around zero where the posterior has no text. Until its labels come, what is known of the other classes
    stays as it is, to the last bit. Query rows are not looked at. `task` may be partial.

    Raises:
        UserError: an engine that does not stream, features of another backbone or dimension, numbers that are
            no longer finite, or whatever `match_classes`, `add_classes`, `remove_class` and `feed` refuse.
    """
    start = time.perf_counter()
    if task is None and not remove:
        raise UserError("nothing to update: give a task, or classes to remove")
    _refuse_still(posterior)
    if task is not None:
        _refuse_other_features(posterior, task)
    for name in remove:
        counts = _counts_without(posterior, name)
        posterior = remove_class(posterior, name)
        posterior.source = replace(posterior.source, label_counts=counts)
    added: tuple[str, ...] = ()
    steps: list[StepInfo] = []
    notes: list[str] = []
    if task is not None:
        matched = match_classes(posterior.class_names, task, remove)
        if matched.new_names:
            posterior = _with_new(posterior, task, matched, backbone, templates)
        added = matched.new_names
        notes = [*matched.notes, *_other_scale(posterior, task), *_one_sided(posterior, task, pace)]
        places = torch.tensor(matched.places)[task.support_labels]
        program = posterior.program
        inputs = inputs_of(type(program), program.context, task.support_rows)
        posterior, steps = _learned(posterior, inputs, places, pace or Pace(), checkpoints)
    assert posterior.stream is not None
    posterior.stream = replace(posterior.stream, updates=posterior.stream.updates + 1)
    seconds = time.perf_counter() - start
    rows = 0 if task is None else len(task.support_labels)
    return Update(posterior, rows, added, tuple(remove), tuple(steps), seconds, tuple(notes))


def request_to_fit(task: Task, settings: FitSettings) -> str:
    """The hash of all that decides what a fit gives."""
    described = {"fit": asdict(settings), "program": program_file(settings.model)}
    return request_of({**described, **_described(task)}, _tensors(task))


def request_to_update(
    task: Task | None,
    remove: Sequence[str] = (),
    pace: Pace | None = None,
    backbone: Backbone | None = None,
    templates: Sequence[str] | None = None,
    device: str = "cpu",
) -> str:
    """The hash of all that decides what an update makes of a posterior."""
    encoder = None if backbone is None else backbone.fingerprint
    described = {
        "update": asdict(pace or Pace()),
        "remove": remove,
        "encoder": encoder,
        "templates": templates,
        "device": device,  # results agree to the last bit on one kind of device only
    }
    if task is None:
        return request_of(described, {})
    return request_of({**described, **_described(task)}, _tensors(task))


def _counts_without(posterior: Posterior, name: str) -> tuple[int, ...]:
    """The label counts of a posterior's other classes; () where it keeps none."""
    counts = posterior.source.label_counts
    pairs = zip(posterior.class_names, counts, strict=False)
    return tuple(count for known, count in pairs if known != name)


def _learned(
    posterior: Posterior, inputs: Tensor, labels: Tensor, pace: Pace, checkpoints: Checkpoints | None
) -> tuple[Posterior, list[StepInfo]]:
    """The posterior after rows (N, F) of its own classes."""
    belief, stream, source = posterior.weights, posterior.stream, posterior.source
    assert stream is not None
    try:
        belief, stream, steps = feed(
            belief,  # type: ignore[arg-type]  # a stream belongs to a belief
            stream,
            inputs.to(belief.mean),
            labels.to(belief.mean.device),
            pace.settings(source.settings),
            classes=len(posterior.class_names),
            program=posterior.logits.program,
            keeper=checkpoints,
        )
        broken = not belief.mean.isfinite().all()
    except torch.linalg.LinAlgError:
        broken = True
    if broken:
        raise UserError(
            "the update broke down (weights are no longer finite); fit again with --rule expected or "
            "--dtype float64"
        )
    # what is asked of a posterior by shots and seed no longer describes its labels
    source = replace(source, support_rows=source.support_rows + len(labels), shots=None, seed=None)
    if source.label_counts:  # new classes stand at the end
        more = torch.bincount(labels.cpu(), minlength=len(posterior.class_names)).tolist()
        known = (*source.label_counts, *(0 for _ in more))
        source = replace(source, label_counts=tuple(a + b for a, b in zip(known, more, strict=False)))
    resumed = checkpoints is not None and checkpoints.resumed
    return Posterior(posterior.program, belief, source, stream), [] if resumed else steps


def _with_new(
    posterior: Posterior,
    task: Task,
    matched: Matched,
    backbone: Backbone | None,
    templates: Sequence[str] | None,
) -> Posterior:
    """`posterior` with the task's new classes, their text from the task or the backbone."""
    text = None
    if task.text_features is not None:
        text = task.text_features[list(matched.new_rows)]
    elif backbone is not None and posterior.program.context.has_text:
        own = posterior.source.backbone
        if own is not None and own != backbone.fingerprint:
            raise UserError(
                f"--backbone {backbone.name}: its fingerprint is {backbone.fingerprint}, and the posterior "
                f"was fitted with {own}; give the one it was fitted with"
            )
        text, _ = encode_class_names(backbone, matched.new_names, templates)
    return add_classes(posterior, matched.new_names, text)


def _refuse_still(posterior: Posterior) -> None:
    """Refuse posteriors that labels cannot be added to."""
    engine = posterior.source.settings.engine
    if engine != "ekf":
        raise UserError(f"{engine} does not stream; fit again with --engine ekf")
    if posterior.stream is None:
        raise UserError(
            "this posterior was saved by an earlier version, without what it takes to go on; fit again"
        )


def _refuse_other_features(posterior: Posterior, task: Task) -> None:
    expected = posterior.program.text_features.shape[1]
    own = posterior.source.backbone
    if own is not None and task.backbone is not None and own != task.backbone:
        raise UserError(
            f"{task.name}: encoded with backbone {task.backbone}, and the posterior was fitted with {own}; "
            "give the --backbone and --pretrained that it was fitted with"
        )
    if task.num_features != expected:
        raise UserError(
            f"{task.name}: features of {task.num_features} columns where the posterior takes {expected}; "
            "encode the images with the backbone it was fitted with"
        )


def _one_sided(posterior: Posterior, task: Task, pace: Pace | None) -> list[str]:
    """A warning of labels that are all of one class: nothing beside them speaks for the others."""
    classes = task.support_labels.unique().tolist()
    passes = (pace or Pace()).settings(posterior.source.settings).passes
    swept = passes > 1 and posterior.stream is not None and posterior.stream.kept is not None
    if len(classes) > 1 or swept:
        return []
    return [
        f"all labels are of '{task.class_names[classes[0]]}': one pass leans too far towards it; add some of "
        "the other classes, or fit and update with --passes 2, which keeps the labels and sweeps over all"
    ]


def _other_scale(posterior: Posterior, task: Task) -> list[str]:
    own = posterior.program.logit_scale
    if task.logit_scale in (own, DEFAULT_LOGIT_SCALE):
        return []
    return [f"{task.name}: its logit_scale {task.logit_scale:g} is not used; the posterior's is {own:g}"]


def _described(task: Task) -> dict[str, object]:
    return {
        "class_names": task.class_names,
        "logit_scale": task.logit_scale,
        "backbone": task.backbone,
        "templates": task.templates,
        "task": task.name,
        "draw": (task.shots, task.seed),
    }


def _tensors(task: Task) -> dict[str, Tensor]:
    tensors = {"features": task.support_features, "labels": task.support_labels}
    return tensors if task.text_features is None else {**tensors, "text": task.text_features}
