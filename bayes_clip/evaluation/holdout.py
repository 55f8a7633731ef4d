"""What the support set says about itself when parts of it are left out: the yardstick for new rows.

Nobody with a handful of labels has a validation set. So balanced folds (one part of the shots of every class)
are left out in turn, the rest is fitted, and the fold predicted. The spread of novelty on those rows says how
novel a row of a known class looks; their confidence and errors say what confidence is worth; and the fits
themselves, by their mean weights, make prediction sets (`conformal`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from bayes_clip.data.rows import Rows
from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.conformal import (
    ROUNDING,
    FoldFits,
    PredictionSets,
    check_share,
    digest_of,
    prediction_sets,
    strangeness,
)
from bayes_clip.evaluation.metrics import confidence_and_correct
from bayes_clip.evaluation.selective import RiskThreshold, threshold_for_risk
from bayes_clip.fitting import fit
from bayes_clip.inference.batches import balanced_folds
from bayes_clip.posterior import Posterior
from bayes_clip.progress import track
from bayes_clip.shard import Shard
from bayes_clip.storage import folder as storage
from bayes_clip.storage.folder import check_posterior_folder, write_posterior
from bayes_clip.storage.lock import locked

MOST_FOLDS = 4  # each costs a fit; with more, each fit is closer to the final one
FITS = "fits."  # of their fields' names in the file
FOLD_FIELDS = tuple(field.name for field in fields(FoldFits))
FALSE_ALARMS = 0.05  # of rows of known classes that may be called "out", unless asked otherwise


@dataclass(frozen=True)
class NoveltyLimit:
    """A row that is more novel than `value` is called "out".

    `false_alarms` is the share of rows of known classes that this is meant for: what was asked, or the least
    that so few rows can stand for.
    """

    value: float
    false_alarms: float


@dataclass(frozen=True)
class HeldOut:
    """Predictions of support rows by fits that did not see them; float64, N support rows."""

    novelty: np.ndarray  # (N,)
    confidence: np.ndarray  # (N,) probability of the predicted class
    correct: np.ndarray  # (N,) 1.0 or 0.0
    fits: FoldFits | None = None  # for prediction sets; None where an earlier version kept none

    def novelty_limit(self, false_alarms: float = FALSE_ALARMS) -> NoveltyLimit:
        """The limit above which at most a share `false_alarms` of rows of known classes should lie.

        The ⌈(1 − ε)(N + 1)⌉-th smallest novelty of the held-out rows: a new row exchangeable with them, and
        judged by the fits that judged them, is above it with chance at most ε. With fewer than 1/ε − 1 rows
        no limit is as sure; it is then the largest, for 1 / (N + 1). The final fit has seen more labels than
        those behind the limit, so that rows look less novel to it: it errs on the side of "in".

        Raises:
            UserError: `false_alarms` is not between 0 and 1.
        """
        check_share("--false-alarms", false_alarms)
        count = len(self.novelty)
        place = math.ceil(round((1 - false_alarms) * (count + 1), ROUNDING))
        rate = false_alarms if place <= count else 1 / (count + 1)
        return NoveltyLimit(float(np.sort(self.novelty)[min(place, count) - 1]), rate)

    def confidence_limit(self, risk: float) -> RiskThreshold:
        """The confidence from which on at most `risk` of the held-out answers are wrong, and one more."""
        return threshold_for_risk(self.confidence, self.correct, risk, unseen_errors=1)


def hold_out(task: Task, posterior: Posterior, shard: Shard | None = None) -> HeldOut | None:
    """Predict every support row of `task` by a fit of the folds it is not in, made as `posterior` was.

    The fits take over the prior variance and the covariance scale that were chosen for `posterior`. None
    where every class has a single row, so that nothing can be left out. `shard` as in `fit`.
    """
    folds = balanced_folds(task.support_labels, MOST_FOLDS)
    if not folds:
        return None
    count = len(task.support_labels)
    novelty, confidence, correct = np.zeros(count), np.zeros(count), np.zeros(count)
    number, surprise, weights = np.zeros(count, dtype=np.int64), np.zeros(count), []
    for index, fold in enumerate(track(folds, "Leaving out parts of the support set")):
        kept = torch.ones(count, dtype=torch.bool)
        kept[fold] = False
        fitted = _fitted_alike(task.with_support(kept), posterior, shard)
        left_out, labels, rows = task.with_support(fold).support_rows, task.support_labels[fold], fold.numpy()
        prediction = fitted.predict(left_out)
        novelty[rows] = prediction.novelty.double().numpy()
        confidence[rows], correct[rows] = confidence_and_correct(
            prediction.probabilities.double().numpy(), labels.numpy()
        )
        number[rows] = index
        surprise[rows] = strangeness(fitted, left_out).gather(1, labels[:, None])[:, 0].numpy()
        weights.append(fitted.weights.mean.cpu().numpy())
    fits = FoldFits(number, surprise, np.stack(weights), digest_of(posterior.class_names))
    return HeldOut(novelty, confidence, correct, fits)


def sets_of(
    posterior: Posterior, held_out: HeldOut | None, rows: torch.Tensor | Rows, coverage: float
) -> PredictionSets:
    """Prediction sets for new rows by what was held out; see `conformal`.

    Raises:
        UserError: there was nothing to hold out, an earlier version kept less of it, or `prediction_sets`
            refuses.
    """
    check_share("--coverage", coverage)
    if held_out is None:
        raise UserError(
            f"--coverage {coverage:g}: one shot per class leaves none to learn the sets from; fit on two"
        )
    if held_out.fits is None:
        raise UserError(f"--coverage {coverage:g}: an earlier version kept no fits of folds; fit again")
    return prediction_sets(posterior, held_out.fits, rows, coverage)


def as_tensors(held_out: HeldOut | None) -> dict[str, torch.Tensor] | None:
    """What `write_posterior` keeps beside a posterior."""
    if held_out is None:
        return None
    arrays = {name: values for name, values in vars(held_out).items() if name != "fits"}
    if held_out.fits is not None:
        arrays |= {f"{FITS}{name}": values for name, values in vars(held_out.fits).items()}
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}


def save_with_held_out(posterior: Posterior, held_out: HeldOut | None, folder: Path) -> None:
    """Save `posterior` into `folder` and what was held out beside it; nothing of an earlier one stays.

    Raises:
        UserError: the folder cannot be written to, is a file, holds something else, or is being written to.
    """
    check_posterior_folder(folder)
    with locked(folder) as target:
        write_posterior(posterior, target, as_tensors(held_out))


def load_held_out(folder: Path) -> HeldOut | None:
    """Read it from a posterior's folder; None where nothing could be held out.

    Raises:
        UserError: no posterior there, or the file is damaged.
    """
    tensors = storage.load_held_out(folder)
    if tensors is None:
        return None
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    kept = {name: arrays.pop(f"{FITS}{name}") for name in FOLD_FIELDS if f"{FITS}{name}" in arrays}
    try:
        return HeldOut(**arrays, fits=FoldFits(**kept) if kept else None)
    except TypeError as error:
        raise UserError(f"{folder}: what was held out was changed ({error}); fit again") from error


def dated(posterior: Posterior, held_out: HeldOut | None) -> tuple[str, ...]:
    """A remark where the posterior has learned since: an update leaves the yardstick as the fit made it.

    Rows that are learned later only make the belief narrower, so the limit of novelty errs further on the
    side of "in"; nothing is known of how novel the rows of classes look that came later.
    """
    if held_out is None or posterior.stream is None or not posterior.stream.updates:
        return ()
    updates = posterior.stream.updates
    return (
        f"verdicts and abstention go by the fit to {len(held_out.novelty)} labels, {updates} "
        f"update{'s' if updates > 1 else ''} ago; to renew them, fit to all labels at once",
    )


def _fitted_alike(task: Task, posterior: Posterior, shard: Shard | None) -> Posterior:
    source, program = posterior.source, type(posterior.program)
    given = source.prior_variance if program.tunes_prior else None
    # plug_in while fitting, so that no covariance scale is chosen anew
    settings = replace(source.settings, prior_variance=given, predictive="plug_in")
    fitted = fit(task, settings, program=program, shard=shard).posterior
    return Posterior(fitted.program, fitted.weights, source)
