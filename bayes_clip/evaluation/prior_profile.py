"""What every criterion says of a prior variance: left-out folds, the evidence, and the query rows.

For looking, never for choosing: `fit` goes by the folds alone, and the query rows must not choose anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bayes_clip.data.task import Task
from bayes_clip.evaluation.metrics import nll
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings
from bayes_clip.tuning import Tuned

Profile = dict[str, dict[float, float]]  # criterion -> prior variance -> nats per label


def prior_profile(task: Task, settings: FitSettings, variances: Iterable[float]) -> Profile:
    """Nats per label by criterion and prior variance; one fit for each variance.

    ``folds``: the NLL of left-out folds at their best covariance scale (from two shots, and engines that
    choose a scale). ``evidence``: minus the filter's log evidence (one pass). ``test``: the NLL of the query
    rows, where there are any. A criterion that is not known is empty.
    """
    profile: Profile = {"folds": {}, "evidence": {}, "test": {}}
    for variance in variances:
        fitted = fit(task, replace(settings, prior_variance=variance))
        for candidate in fitted.tuned.profile:
            profile["folds"][variance] = candidate.fold_nll
        if "log_evidence" in fitted.info:
            profile["evidence"][variance] = -fitted.info["log_evidence"] / len(task.support_labels)
        if len(task.query_labels):
            said = fitted.posterior.predict(task.query_rows).probabilities.double().cpu().numpy()
            profile["test"][variance] = nll(said, task.query_labels.cpu().numpy())
    return profile


def tried(tuned: Tuned) -> Profile:
    """The same of what a fit tried on its way: ``folds``, and with the hyper-prior ``objective``."""
    return {
        "folds": {one.prior_variance: one.fold_nll for one in tuned.profile},
        "objective": {one.prior_variance: one.objective for one in tuned.profile},
    }
