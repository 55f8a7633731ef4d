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
from bayes_clip.gaussian.cost import EIGEN, batch_work, bytes_needed, free_memory, peak_bytes
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.batches import balanced_folds, batches
from bayes_clip.inference.engines import Problem, filtered
from bayes_clip.inference.held_out import CLOSED_FORM_FAMILIES, MOST_ROWS
from bayes_clip.inference.program import require_head
from bayes_clip.inputs import inputs_of, task_context
from bayes_clip.model import find_model
from bayes_clip.precision import full_precision
from bayes_clip.rates import Rates, eigen_rate, measure
from bayes_clip.settings import FitSettings
from bayes_clip.tuning import default_variance

ENGINES = ("ekf", "laplace")
LONG = 0.5  # seconds
MOST_EIGEN = 256  # rows of the matrix whose eigenvectors are timed
TIMED_ROWS = 8  # at least, in whole batches
READINGS = 3  # of the program: at unit prior variance, at the chosen one, and in the posterior
# Prior variances tried, and the held-out predictions at each against a fit: from sites that are kept, or by
# two refits of half the labels. analysis/predicted_seconds.py measures how far that is right.
TRIED = 3
HELD_OUT_SITES, HELD_OUT_REFITS = 0.6, 1.0
MODE_PRODUCTS = 100  # of the curvature with a vector until the mode is found: 30 to 300 as the prior widens

# Operations in float64 for the Laplace covariance: (C, D, N) -> int. Per class: precision, its inverse, what
# ties it to the rows, the system that the classes share, and what that takes back.
LAPLACE: dict[str, Callable[[int, int, int], int]] = {
    "class_block": lambda c, d, n: c * (6 * n * d**2 + d**3 + 3 * n**2 * d),
    "diagonal": lambda c, d, n: 2 * c * d * n,
    "full": lambda c, d, n: 2 * n * (c * d) ** 2 + (c * d) ** 3,
    "kronecker": lambda c, d, n: 2 * n * (c**2 + d**2) + EIGEN * (c**3 + d**3),
}


@dataclass(frozen=True)
class Forecast:
    """One covariance: what the engine would hold and how long it would take."""

    covariance: str
    weights: int  # P
    posterior_bytes: int  # of the covariance alone
    peak_bytes: int  # with the copies held while it is updated
    seconds: float
    fits: bool  # in the memory that is free
    chosen: bool  # by the settings


@dataclass(frozen=True)
class Speeds:
    """What the machine does per second."""

    rates: Rates  # in the dtype of the fit
    double: Rates  # in float64
    eigen: float  # nominal operations of eigenvectors, in float64


@torch.no_grad()
@full_precision()
def forecast(task: Task, settings: FitSettings | None = None) -> tuple[Forecast, ...]:
    """What `fit` would take for `task` with every covariance that its engine offers; nothing is fitted.

    Takes seconds: rates are measured, and for the filter one batch is learned in a few dimensions under each
    covariance. What does not fit in memory is forecast all the same; what the other settings rule out (some
    passes, some rules) is left out.

    Raises:
        UserError: another engine than ekf or laplace, a program that is no linear head, or settings that the
            covariance they name does not go with.
    """
    settings = settings or FitSettings()
    if settings.engine not in ENGINES:
        raise UserError(
            f"--dry-run: forecasts {' and '.join(ENGINES)}, and {settings.engine} has no covariance or takes "
            "steps that no count tells; leave --dry-run out"
        )
    require_head(_problem(task, settings).program, "--dry-run")
    speeds = _speeds(task, settings)
    reading = READINGS * _timed(lambda: _problem(task, settings).program)
    rows = []
    for family in ENGINE_COVARIANCES[settings.engine]:
        one = replace(settings, covariance=family)
        try:
            seconds = (_filter_seconds if settings.engine == "ekf" else _laplace_seconds)(task, one, speeds)
        except UserError:
            if family == settings.family:
                raise
            continue
        rows.append(_row(task, one, reading + seconds, family == settings.family))
    return tuple(rows)


def search_factor(task: Task, settings: FitSettings) -> float:
    """How many fits at a given prior variance the whole fit takes, the last one included: a rough number."""
    if not balanced_folds(task.support_labels, 2):
        return 1.0
    looked_at = min(1.0, MOST_ROWS / len(task.support_labels))
    each = looked_at * (HELD_OUT_SITES if settings.family in CLOSED_FORM_FAMILIES else HELD_OUT_REFITS)
    if settings.prior_variance is None:
        return 1.0 + TRIED * each
    return 1.0 + each if settings.predictive == "auto" else 1.0


def _row(task: Task, settings: FitSettings, seconds: float, chosen: bool) -> Forecast:
    size = task.num_classes, task.num_features
    # Laplace inverts the whole precision in float64, whatever it returns
    whole = settings.engine == "laplace" and settings.family == "full"
    peak = peak_bytes(settings.family, *size, torch.float64 if whole else settings.torch_dtype)
    return Forecast(
        covariance=settings.family,
        weights=task.num_classes * task.num_features,
        posterior_bytes=bytes_needed(settings.family, *size, settings.torch_dtype),
        peak_bytes=peak,
        seconds=seconds,
        fits=peak <= free_memory(settings.device),
        chosen=chosen,
    )


def _speeds(task: Task, settings: FitSettings) -> Speeds:
    rates = measure(settings.device, settings.torch_dtype)
    double = rates
    if settings.engine == "laplace" and settings.torch_dtype != torch.float64:
        double = measure(settings.device, torch.float64)
    return Speeds(rates, double, eigen_rate(settings.device, min(task.num_features, MOST_EIGEN)))


def _filter_seconds(task: Task, settings: FitSettings, speeds: Speeds) -> float:
    family, classes = settings.family, task.num_classes
    order = batches(task.support_labels, classes, settings.order, settings.batch_size, settings.seed, family)
    size = len(order[0])
    whole = settings.block_rows if size == 1 and family == "class_block" else size
    picked = torch.cat(order)[: max(whole, math.ceil(TIMED_ROWS / size) * size)]
    problem = _in_its_span(task, settings, picked)
    spent = _timed(lambda: filtered(problem, settings))
    visits = 2 * settings.passes - 1  # a batch that comes again is taken out first

    def counted(features: int, rows: int) -> float:
        flops, moved, eigen = batch_work(family, classes, features, whole, settings.torch_dtype.itemsize)
        return visits * rows / whole * (speeds.rates.seconds(flops, moved) + eigen / speeds.eigen)

    total = len(task.support_labels)
    beside = max(0.0, spent - counted(problem.inputs.shape[1], len(picked))) * total / len(picked)
    return search_factor(task, settings) * (beside + counted(task.num_features, total))


def _laplace_seconds(task: Task, settings: FitSettings, speeds: Speeds) -> float:
    classes, features, rows = task.num_classes, task.num_features, len(task.support_labels)
    axes = min(rows, features)
    moved = 4 * classes * rows * settings.torch_dtype.itemsize  # logits, read and written twice a product
    mode = speeds.rates.seconds(4 * classes * rows * axes * MODE_PRODUCTS, moved * MODE_PRODUCTS)
    mode += EIGEN * axes**3 / speeds.eigen
    covariance = speeds.double.seconds(LAPLACE[settings.family](classes, features, rows), 0)
    return search_factor(task, settings) * (mode + covariance)


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
    whole = task_context(kind, task)
    context = replace(whole, text_features=whole.text_features.to(*place))
    variance = settings.prior_variance or default_variance(
        settings.update_rule, task.logit_scale**2, task.text_features is not None
    )
    inputs = inputs_of(kind, context, task.support_rows).to(*place)
    return Problem(kind, context, inputs, task.support_labels.to(settings.device), variance)


def _timed(work: Callable[[], object]) -> float:
    """Seconds of a run; of a short one those of the second, since the first pays for what is set up once."""
    for _ in range(2):
        start = time.perf_counter()
        work()
        spent = time.perf_counter() - start
        if spent > LONG:
            break
    return spent
