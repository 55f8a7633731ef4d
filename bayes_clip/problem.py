"""What there is to infer: a task and settings as a problem of one model program, checked before any fit."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.gaussian import design as designs
from bayes_clip.inference import FLAT_DEFAULTS, HEAD_ONLY
from bayes_clip.inference.engines import Problem
from bayes_clip.inference.program import Program, require_head
from bayes_clip.inference.sgd import Views
from bayes_clip.inputs import inputs_of, task_context
from bayes_clip.model import AdapterModel, Context
from bayes_clip.observation import SOFTMAX
from bayes_clip.settings import FitSettings
from bayes_clip.views import augmented_views

MOST_FULL_WEIGHTS = 2048  # of a program that is no linear head: up to here its covariance is full by default
NEED_A_SLOPE = ("map", "ekf", "laplace")  # engines that follow the Jacobian from the prior mean
MOST_ROWS_MEASURED = 256  # to find the prior variance of a logit
MOST_NUMBERS_MEASURED = 2**26  # of the Jacobian of those rows


def problem_of(task: Task, settings: FitSettings, kind: type[AdapterModel]) -> tuple[Problem, float]:
    """The problem at unit prior variance, and the prior variance of a logit there (s² for a linear probe).

    Raises:
        UserError: the program has another number of outputs than the task has classes.
    """
    place = settings.device, settings.torch_dtype
    context = task_context(kind, task)
    context = replace(context, text_features=context.text_features.to(*place))
    inputs = inputs_of(kind, context, task.support_rows).to(*place)
    views = _views(kind, context, task, settings) if settings.engine == "sgd" else None
    problem = Problem(kind, context, inputs, task.support_labels.to(settings.device), 1.0, views)
    program = problem.program
    classes = program.observation.class_logits(inputs.new_zeros(1, program.outputs)).shape[1]
    if classes != task.num_classes:
        raise UserError(
            f"{program.name}: has {program.outputs} outputs and {task.name} {task.num_classes} classes; give "
            "one output per class (or a single Normal or Bernoulli output for two classes)"
        )
    _check_coding(program, inputs[:1], classes)
    if settings.engine == "sgd" and not program.is_head:
        return problem, 0.0  # nothing is chosen by it, and it takes the Jacobians of all those rows
    numbers = 1 if program.is_head else program.outputs * program.prior_mean.numel()
    most = max(1, min(MOST_ROWS_MEASURED, MOST_NUMBERS_MEASURED // numbers))
    some = inputs[:: -(-len(inputs) // most)]
    variance = float(designs.times(program.design(some).square(), program.prior_variance).mean())
    if not variance > 0 and settings.engine in NEED_A_SLOPE:
        raise UserError(
            f"{program.name}: at the prior mean its logits do not move with any weight, so {settings.engine} "
            "has nowhere to go; give a site a prior mean away from there (for a two-layer adapter: a first "
            "layer that is not zero)"
        )
    return problem, variance


def _views(kind: type[AdapterModel], context: Context, task: Task, settings: FitSettings) -> Views | None:
    """What each epoch of a training sees, in the dtype and on the device of the fit."""
    views = augmented_views(kind, context, task, settings.seed)
    if views is None:
        return None
    return lambda epoch: views(epoch).to(settings.device, settings.torch_dtype)


def _check_coding(program: Program, row: Tensor, classes: int) -> None:
    """Refuse likelihoods that write labels otherwise than predictions are read.

    Raises:
        UserError: values that are not 0 and 1 for two classes, or one-hot.
    """
    if program.observation is SOFTMAX:
        return
    each = torch.arange(classes, device=row.device)
    coded = program.targets(row.expand(classes, -1), each).reshape(classes, -1).to(row)
    wanted = each[:, None].to(row) if program.outputs == 1 else torch.eye(classes).to(row)
    if not torch.equal(coded, wanted):
        raise UserError(
            f"{program.name}: observes class labels as {coded[0].tolist()}, {coded[1].tolist()}, ...; "
            "observe labels as they come (0 and 1) with one output, or one-hot with one output per class"
        )


def with_covariance(settings: FitSettings, program: Program) -> FitSettings:
    """The settings with a covariance that the program can have.

    Raises:
        UserError: one was asked for that needs a linear head.
    """
    if program.is_head or settings.family not in HEAD_ONLY:
        return settings
    if settings.covariance is not None:
        require_head(program, f"--covariance {settings.covariance}")
    small = program.prior_mean.numel() <= MOST_FULL_WEIGHTS
    return replace(settings, covariance=FLAT_DEFAULTS[0 if small else 1])
