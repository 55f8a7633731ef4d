"""What the support set says about itself when parts of it are left out: the yardstick for new rows.

Nobody with a handful of labels has a validation set. So balanced folds (one part of the shots of every class)
are left out in turn, the rest is fitted, and the fold predicted. The spread of novelty on those rows says how
novel a row of a known class looks; their confidence and errors say what confidence is worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.metrics import confidence_and_correct
from bayes_clip.evaluation.selective import RiskThreshold, threshold_for_risk
from bayes_clip.fitting import fit
from bayes_clip.inference.batches import balanced_folds
from bayes_clip.posterior import Posterior
from bayes_clip.progress import track
from bayes_clip.storage import folder as storage
from bayes_clip.storage.folder import check_posterior_folder, write_posterior
from bayes_clip.storage.lock import locked

MOST_FOLDS = 4  # each costs a fit; with more, each fit is closer to the final one
KNOWN_SHARE = 0.95  # of the rows of known classes that should be called "in"


@dataclass(frozen=True)
class HeldOut:
    """Predictions of support rows by fits that did not see them; float64, N support rows."""

    novelty: np.ndarray  # (N,)
    confidence: np.ndarray  # (N,) probability of the predicted class
    correct: np.ndarray  # (N,) 1.0 or 0.0

    @property
    def novelty_limit(self) -> float:
        """The novelty below which 95 % of the held-out rows lie; above it a row is called "out".

        The fits behind it saw fewer shots than the final one, so it errs on the side of "in".
        """
        return float(np.quantile(self.novelty, KNOWN_SHARE))

    def confidence_limit(self, risk: float) -> RiskThreshold:
        """The confidence from which on at most `risk` of the held-out answers are wrong."""
        return threshold_for_risk(self.confidence, self.correct, risk)


def hold_out(task: Task, posterior: Posterior) -> HeldOut | None:
    """Predict every support row of `task` by a fit of the folds it is not in, made as `posterior` was.

    The fits take over the prior variance and the covariance scale that were chosen for `posterior`. None
    where every class has a single row, so that nothing can be left out.
    """
    folds = balanced_folds(task.support_labels, MOST_FOLDS)
    if not folds:
        return None
    count = len(task.support_labels)
    novelty, confidence, correct = np.zeros(count), np.zeros(count), np.zeros(count)
    for fold in track(folds, "Leaving out parts of the support set"):
        kept = torch.ones(count, dtype=torch.bool)
        kept[fold] = False
        prediction = _fitted_alike(task.with_support(kept), posterior).predict(
            task.with_support(fold).support_rows
        )
        rows = fold.numpy()
        novelty[rows] = prediction.novelty.double().numpy()
        confidence[rows], correct[rows] = confidence_and_correct(
            prediction.probabilities.double().numpy(), task.support_labels[fold].numpy()
        )
    return HeldOut(novelty, confidence, correct)


def as_tensors(held_out: HeldOut | None) -> dict[str, torch.Tensor] | None:
    """What `write_posterior` keeps beside a posterior."""
    if held_out is None:
        return None
    return {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in vars(held_out).items()}


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
    try:
        return HeldOut(**{name: tensor.numpy() for name, tensor in tensors.items()})
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


def _fitted_alike(task: Task, posterior: Posterior) -> Posterior:
    source, program = posterior.source, type(posterior.program)
    given = source.prior_variance if program.tunes_prior else None
    # plug_in while fitting, so that no covariance scale is chosen anew
    settings = replace(source.settings, prior_variance=given, predictive="plug_in")
    fitted = fit(task, settings, program=program).posterior
    return Posterior(fitted.program, fitted.weights, source)
