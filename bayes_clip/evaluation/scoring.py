"""A posterior tried on a task's query set: one row of metrics, and what it was computed from."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.evaluation.alignment import in_class_order
from bayes_clip.evaluation.engine_checks import SelfCheck, self_check
from bayes_clip.evaluation.results import Run, score
from bayes_clip.fitting import Fit
from bayes_clip.inference import NO_PRIOR
from bayes_clip.posterior import Posterior


def run_of(fitted: Fit, task: Task) -> Run:
    """Score a fit on its task's query set."""
    return score_posterior(fitted.posterior, task, fit_seconds=fitted.seconds)


def score_posterior(
    posterior: Posterior,
    task: Task,
    fit_seconds: float | None = None,
    among: Sequence[int] | None = None,
) -> Run:
    """Score a posterior on a task's query set, and its novelty on the task's OOD rows where it has some.

    Classes are matched by name: the task may have them in another order, or not all of them. `among`: query
    rows are of these classes of the posterior (in rising order), and known to be: probabilities are divided
    by what those classes have together. For point estimates that is the softmax over those classes alone.

    Raises:
        UserError: the task has another number of features, or classes that the posterior does not know.
    """
    task = in_class_order(task, posterior.class_names)
    start = time.perf_counter()
    prediction = posterior.predict(task.query_rows)
    predict_seconds = time.perf_counter() - start
    outside = None if task.ood_rows is None else posterior.predict(task.ood_rows)
    probabilities, labels = _array(prediction.probabilities), task.query_labels.cpu().numpy()
    if among is not None:
        probabilities, labels = given_among(probabilities, labels, among)
    novelty = _array(prediction.novelty)
    ood_novelty = None if outside is None else _array(outside.novelty)
    source = posterior.source
    row = {
        "task": task.name,
        "model": source.settings.model,
        "engine": source.settings.engine,
        "shots": "" if source.shots is None else source.shots,
        "seed": "" if source.seed is None else source.seed,
        "n_support": source.support_rows,
        "n_query": len(labels),
        **score(probabilities, labels, novelty, ood_novelty),
        "prior_variance": "" if source.settings.engine in NO_PRIOR else source.prior_variance,
        "fit_seconds": "" if fit_seconds is None else fit_seconds,
        "predict_seconds": predict_seconds,
        "covariance": source.settings.family,
        "rule": source.settings.update_rule if source.settings.engine == "ekf" else "",
        "predictive": posterior.predictive,
        "novelty_score": posterior.novelty_score,
        "backbone": source.backbone or "",
        "self_check": checked_near(posterior).verdict,
    }
    return Run(
        row=row,
        probabilities=probabilities,
        labels=labels,
        novelty=novelty,
        epistemic=_array(prediction.epistemic),
        ood_novelty=ood_novelty,
        ood_probabilities=None if outside is None else _array(outside.probabilities),
    )


def given_among(
    probabilities: np.ndarray, labels: np.ndarray, among: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (M, n) given that the class is one of `among` (n, rising), and labels in its numbering.

    A row that gives all of them nothing (float64 underflows) is uniform.
    """
    chosen = probabilities[:, list(among)]
    total = chosen.sum(1, keepdims=True)
    even = np.full_like(chosen, 1 / len(among))
    return np.divide(chosen, total, out=even, where=total > 0), np.searchsorted(among, labels)


def checked_near(posterior: Posterior) -> SelfCheck:
    """What the engine's own check said near the posterior's prior variance of a logit, s² v."""
    source = posterior.source
    return self_check(source.settings, source.prior_variance * posterior.program.logit_scale**2)


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
