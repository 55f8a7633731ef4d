"""What a fit will take with each covariance, said before anything large is allocated.

The work that grows with the features is counted (`gaussian.cost`) and divided by rates measured here and now.
What a batch costs beside it, the steps of a rule above all, follows no simple count: it is measured on the
task's first batch, turned into its own span. That changes neither its logits nor their covariance, so a rule
takes the same steps there as in the fit, in as many dimensions as the batch has rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.gaussian.cost import batch_work, bytes_needed, free_memory, peak_bytes
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.batches import balanced_folds, batches
from bayes_clip.inference.engines import Problem, filtered
from bayes_clip.inference.program import require_head
from bayes_clip.model import AdapterModel, context_of, find_model
from bayes_clip.precision import full_precision
from bayes_clip.rates import Rates, eigen_rate, measure
from bayes_clip.settings import FitSettings
from bayes_clip.tuning import default_variance

LONG = 0.5  # seconds
TIMED_ROWS = 8  # at least, in whole batches
READINGS = 3  # of the program: at unit prior variance, at the chosen one, and in the posterior
SEARCH = 2.0  # what choosing the prior variance costs, in fits at a given one: see `search_factor`
SCALE = 0.5  # the same of choosing the covariance scale alone


@dataclass(frozen=True)
class Forecast:
    """One covariance: what the filter would hold and how long it would take."""

    covariance: str
    weights: int  # P
    posterior_bytes: int  # of the covariance alone
    peak_bytes: int  # with the copies held while it is updated
    seconds: float
    fits: bool  # in the memory that is free
    chosen: bool  # by the settings


@torch.no_grad()
@full_precision()
def forecast(
    task: Task, settings: FitSettings | None = None, rates: Rates | None = None
) -> tuple[Forecast, ...]:
    """What `fit` would take for `task` with every covariance that the filter offers; nothing is fitted.

    Takes seconds: `rates` are measured unless given, and one batch is learned in a few dimensions for each
    covariance. Covariances that do not fit in memory are forecast all the same.

    Raises:
        UserError: another engine than ekf, or a program that is no linear head.
    """
    settings = settings or FitSettings()
    if settings.engine != "ekf":
        raise UserError(
            f"--dry-run: forecasts engine ekf, and {settings.engine} takes steps whose number is not known "
            "before; use --engine ekf, or leave --dry-run out"
        )
    rates = rates or measure(settings.device, settings.torch_dtype)
    eigen = eigen_rate(settings.device, min(task.num_features, 256))
    reading = READINGS * _timed(lambda: _problem(task, settings).program)
    free = free_memory(settings.device)
    size = task.num_classes, task.num_features
    rows = []
    for family in ENGINE_COVARIANCES["ekf"]:
        peak = peak_bytes(family, *size, settings.torch_dtype)
        rows.append(
            Forecast(
                covariance=family,
                weights=task.num_classes * task.num_features,
                posterior_bytes=bytes_needed(family, *size, settings.torch_dtype),
                peak_bytes=peak,
                seconds=reading + _seconds(task, replace(settings, covariance=family), rates, eigen),
                fits=peak <= free,
                chosen=family == settings.family,
            )
        )
    return tuple(rows)


def search_factor(task: Task, settings: FitSettings) -> float:
    """How many fits at a given prior variance the whole fit takes, the last one included."""
    if not balanced_folds(task.support_labels, 2):
        return 1.0
    if settings.prior_variance is None:
        return 1.0 + SEARCH
    return 1.0 + SCALE if settings.predictive == "auto" else 1.0


def _seconds(task: Task, settings: FitSettings, rates: Rates, eigen: float) -> float:
    order = batches(
        task.support_labels,
        task.num_classes,
        settings.order,
        settings.batch_size,
        settings.seed,
        settings.family,
    )
    size = len(order[0])
    whole = settings.block_rows if size == 1 and settings.family == "class_block" else size
    picked = torch.cat(order)[: max(whole, math.ceil(TIMED_ROWS / size) * size)]
    problem = _in_its_span(task, settings, picked)
    require_head(problem.program, "--dry-run")
    spent = _timed(lambda: filtered(problem, replace(settings, passes=1)))

    def counted(features: int, rows: int) -> float:
        item = settings.torch_dtype.itemsize
        flops, moved, own = batch_work(settings.family, task.num_classes, features, whole, item)
        return rows / whole * (rates.seconds(flops, moved) + own / eigen)

    total = len(task.support_labels)
    beside = max(0.0, spent - counted(problem.inputs.shape[1], len(picked))) * total / len(picked)
    visits = 2 * settings.passes - 1  # a batch that comes again is taken out first
    return search_factor(task, settings) * visits * (beside + counted(task.num_features, total))


def _in_its_span(task: Task, settings: FitSettings, rows: Tensor) -> Problem:
    """The problem of these rows alone, in an orthonormal basis of what they span."""
    axes, turned = torch.linalg.qr(task.support_features[rows].double().mT)
    whole = (
        task
        if task.text_features is None
        else replace(task, text_features=task.text_features.double() @ axes)
    )
    return _problem(
        replace(whole, support_features=turned.mT.contiguous(), support_labels=task.support_labels[rows]),
        settings,
    )


def _problem(task: Task, settings: FitSettings) -> Problem:
    """The support set as an engine sees it, at the prior variance that is given or likely."""
    kind, place = find_model(settings.model), (settings.device, settings.torch_dtype)
    whole = context_of(task.text_features, task.class_names, task.logit_scale, task.num_features)
    context = replace(whole, text_features=whole.text_features.to(*place))

    def build(prior_variance: float) -> AdapterModel:
        return kind(context, prior_variance)

    variance = settings.prior_variance or default_variance(
        settings.update_rule, task.logit_scale**2, task.text_features is not None
    )
    inputs, labels = task.support_features.to(*place), task.support_labels.to(settings.device)
    return Problem(build, inputs, labels, variance)


def _timed(work: Callable[[], object]) -> float:
    """Seconds of a run; of a short one those of the second, since the first pays for what is set up once."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        spent = time.perf_counter() - start
        if spent > LONG:
            break
    return spent
