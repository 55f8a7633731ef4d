"""Prediction sets that hold the true class with a stated chance: cross-conformal over the support folds.

Nobody with a handful of labels can spare some for calibration. Cross-conformal prediction (Vovk 2015), for
classification the CV+ of Romano, Sesia & Candès (2020, arXiv 2006.02544), uses every row twice: the fold that
it is in is scored by a fit of the other folds, and a new row is scored by each of these fits. A class y stays
in the set of x if, with the score S (large: strange) and α = 1 − coverage,

    1 + #{support rows i : S_i >= S_fold(i)(x, y)} > α (N + 1).

Here S is −log p of the class at the mean weights of the fit: by the threshold on p the sets are small on
average (Sadinle, Lei & Wasserman 2019), and of the fits only the means need to be kept.

What is certain: where new rows are exchangeable with the N support rows and the K folds are of one size, the
set holds the truth with chance at least 1 − 2 α − min(2 (1 − 1/K) / (N/K + 1), (1 − K/N) / (K + 1)) (Barber,
Candès, Ramdas & Tibshirani 2021, theorem 4). What is found in practice is about 1 − α. What is approximate: a
support set of the same number of shots of every class is exchangeable with new rows only within classes; and
the fits take over one number (the prior variance) that was chosen on all rows. `analysis/promises_kept.py`
measures the coverage.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.inference.program import Program, read_program
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within
from bayes_clip.model import Support
from bayes_clip.posterior import Posterior
from bayes_clip.precision import full_precision

ROUNDING = 9  # decimals of α (N + 1), which should be whole where it is
NUMBERS_PER_CLASS = 6  # of a row by one fit: logits, their logarithms, and what makes them, in float64
MOST_AT_ONCE = 1024  # rows that go through a program at once, whose own memory is not known


@dataclass(frozen=True)
class FoldFits:
    """Fits without one fold each, and what they said of the rows they left out. N support rows, K folds."""

    fold: np.ndarray  # (N,) the fold that each support row is in
    strangeness: np.ndarray  # (N,) −log p of the row's own class by the fit without its fold
    weights: np.ndarray  # (K, *shape of the weights) the fits' mean weights
    classes: np.ndarray  # (32,) what `digest_of` makes of the names of the classes they know


@dataclass(frozen=True)
class PredictionSets:
    """Which classes each of M rows may belong to, at a stated coverage."""

    members: np.ndarray  # (M, C) bool
    coverage: float  # asked for
    guaranteed: float  # what the theorem promises at least; 0 where it promises nothing
    rows: int  # N
    folds: int  # K

    @property
    def sizes(self) -> np.ndarray:
        """Number of classes in each set, (M,)."""
        return np.asarray(self.members.sum(1))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of them."""
        least = least_rows(self.coverage)
        if self.rows < least:
            return (
                f"prediction sets: {self.rows} labels are too few for a coverage of {self.coverage:g}, which "
                f"takes {least}; every set holds every class",
            )
        certain = f", for certain at least {self.guaranteed:.0%}" if self.guaranteed > 0 else ""
        return (
            f"prediction sets hold the class of about {self.coverage:.0%} of rows like the {self.rows} "
            f"labelled ones (cross-conformal over {self.folds} folds{certain})",
        )


def check_share(option: str, share: float) -> float:
    """`share`, if it lies between 0 and 1.

    Raises:
        UserError: names the `option`.
    """
    if not 0.0 < share < 1.0:
        raise UserError(f"{option} {share:g}: give a share between 0 and 1, such as 0.05 or 0.9")
    return share


def least_rows(coverage: float) -> int:
    """The fewest support rows N with which a class can be left out of a set: α (N + 1) must reach one."""
    return math.ceil(round(1 / (1 - coverage), ROUNDING)) - 1


def guaranteed_coverage(coverage: float, rows: int, folds: int) -> float:
    """The least chance that the theorem above leaves for K folds of N/K rows; no less than 0."""
    ragged = 2 * (1 - 1 / folds) / (rows / folds + 1), (1 - folds / rows) / (folds + 1)
    return max(0.0, 1 - 2 * (1 - coverage) - min(ragged))


@torch.no_grad()
@full_precision()
def strangeness(posterior: Posterior, rows: Tensor | Rows, budget: int = WORKING_BYTES) -> Tensor:
    """The score S, −log p (M, C) of each class at the mean weights; float64, on the CPU.

    Raises:
        UserError: inputs that `Posterior.predict` refuses.
    """
    own = _at_weights(posterior.logits.program, posterior.weights.mean)
    inputs = posterior.as_inputs(rows)
    return by_rows(lambda part: (own(part),), inputs, _rows_at_once(posterior, 1, budget))[0]


def conformal_counts(fold: np.ndarray, strangeness: np.ndarray, new: np.ndarray) -> np.ndarray:
    """#{support rows i : S_i >= S_fold(i)} for `new` scores (K, ...) by each fit; shape (...)."""
    counts = np.zeros(new.shape[1:], dtype=np.int64)
    for index, scores in enumerate(new):
        own = np.sort(strangeness[fold == index])
        counts += len(own) - np.searchsorted(own, scores, side="left")
    return counts


def members_of(counts: np.ndarray, rows: int, coverage: float) -> np.ndarray:
    """Whether each stays in its set: 1 + `counts` > α (N + 1)."""
    return np.asarray(1 + counts > round((1 - coverage) * (rows + 1), ROUNDING))


def digest_of(class_names: Sequence[str]) -> np.ndarray:
    """The hash of the names in their order, (32,) uint8."""
    return np.frombuffer(hashlib.sha256("\n".join(class_names).encode()).digest(), dtype=np.uint8)


@torch.no_grad()
@full_precision()
def prediction_sets(
    posterior: Posterior,
    fits: FoldFits,
    rows: Tensor | Rows,
    coverage: float,
    budget: int = WORKING_BYTES,
) -> PredictionSets:
    """Cross-conformal sets for inputs (M, F), or the rows of a task or feature file. See the module.

    They are those of the fit: labels that an update brought since neither spoil nor shrink them.

    Raises:
        UserError: `coverage` out of range, classes that came or went since the fit, or inputs that
            `Posterior.predict` refuses.
    """
    check_share("--coverage", coverage)
    if not np.array_equal(fits.classes, digest_of(posterior.class_names)):
        raise UserError("--coverage: classes came or went since the fit; fit again to all labels for sets")
    inputs = posterior.as_inputs(rows)
    scores = [_of_fold(posterior, fits, index) for index in range(len(fits.weights))]

    def counted(part: Tensor) -> tuple[Tensor]:
        seen = np.stack([score(part).numpy() for score in scores])
        return (torch.from_numpy(conformal_counts(fits.fold, fits.strangeness, seen)),)

    counts = by_rows(counted, inputs, _rows_at_once(posterior, len(scores), budget))[0].numpy()
    count, folds = len(fits.fold), len(fits.weights)
    return PredictionSets(
        members_of(counts, count, coverage),
        coverage,
        guaranteed_coverage(coverage, count, folds),
        count,
        folds,
    )


def _of_fold(posterior: Posterior, fits: FoldFits, index: int) -> Callable[[Tensor], Tensor]:
    """`strangeness` of inputs (n, F) by the fit without fold `index`.

    A program that keeps labelled rows keeps those of the other folds.

    Raises:
        UserError: it keeps other rows than those that were divided into folds.
    """
    program, model = posterior.logits.program, posterior.program
    like = posterior.weights.mean
    if type(model).uses_support:
        support = model.context.support
        if support is None or len(support.labels) != len(fits.fold):
            raise UserError("--coverage: the labelled rows are no longer those of the fit; fit again")
        kept = torch.from_numpy(fits.fold != index).to(support.labels.device)
        rest = Support(support.inputs[kept], support.labels[kept])
        fitted = type(model)(replace(model.context, support=rest), model.prior_variance)
        program = read_program(fitted, rest.inputs[:1].to(like))
    return _at_weights(program, torch.from_numpy(fits.weights[index]).to(like))


def _at_weights(program: Program, weights: Tensor) -> Callable[[Tensor], Tensor]:
    def scores(inputs: Tensor) -> Tensor:
        logits = program.observation.class_logits(program.logits(weights, inputs))
        return -logits.double().log_softmax(-1).cpu()

    return scores


def _rows_at_once(posterior: Posterior, fits: int, budget: int) -> int:
    numbers = posterior.program.width + NUMBERS_PER_CLASS * len(posterior.class_names)
    return min(MOST_AT_ONCE, rows_within(budget, 8 * fits * numbers))
