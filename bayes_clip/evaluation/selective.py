"""Selective prediction: answer only where the model is confident enough, and know what that costs.

`confidence` (M,) is any score that is large where the model is sure; `correct` (M,) is 1.0 or 0.0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from bayes_clip.evaluation.metrics import Array, share_ties


@dataclass(frozen=True)
class RiskCoverage:
    """Error rate among the rows answered, for every share of rows answered (most confident first).

    Point k answers the k + 1 most confident rows: `coverage` (M,) is (k + 1) / M and `risk` (M,) their error
    rate. `oracle` (M,) is the same for the best possible order; a random order gives `random` everywhere.
    """

    coverage: Array
    risk: Array
    oracle: Array
    random: float

    @property
    def aurc(self) -> float:
        """Area under the risk-coverage curve: the mean of `risk` (Geifman et al. 2019); smaller is better."""
        return float(self.risk.mean())

    @property
    def excess_aurc(self) -> float:
        """Area above the oracle: what the order of the confidences costs, whatever the accuracy."""
        return float(self.risk.mean() - self.oracle.mean())


@dataclass(frozen=True)
class RiskThreshold:
    """Answer where confidence >= `threshold`; on the rows it was chosen on, that is `coverage` of them.

    `risk` is the error rate among them, `bound` what was compared with the risk asked for (equal to `risk`
    without a confidence level or unseen errors). When no threshold will do, `threshold` is infinite and
    `coverage` zero.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Risk-coverage curve with its references; rows of equal confidence share their mean error."""
    scores, errors = _scores_and_errors(confidence, correct)
    answered = np.arange(1, len(scores) + 1)
    shared = share_ties(scores, errors)[np.argsort(-scores)]
    return RiskCoverage(
        coverage=answered / len(scores),
        risk=np.cumsum(shared) / answered,
        oracle=np.cumsum(np.sort(errors)) / answered,
        random=float(errors.mean()),
    )


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve."""
    return risk_coverage(confidence, correct).aurc


def threshold_for_risk(
    confidence: ArrayLike,
    correct: ArrayLike,
    risk: float,
    confidence_level: float | None = None,
    unseen_errors: int = 0,
) -> RiskThreshold:
    """The largest coverage whose error rate is at most `risk`.

    Without `confidence_level` the error rate is the empirical one, which the choice of the threshold makes
    look better than it is: expect more on new rows where there are few. `unseen_errors` answers, all wrong,
    are then added to those seen, (wrong + u) / (answered + u): with one, no risk below 1 / (rows + 1) can be
    had, as with any quantile of so many rows. With a level (say 0.95), the one-sided Clopper-Pearson upper
    bound of the error rate must be at most `risk`; the level is divided by the number of thresholds tried
    (Bonferroni), so that it holds for the one chosen (as Geifman & El-Yaniv 2017, by search).
    """
    if not 0.0 <= risk <= 1.0:
        raise ValueError(f"risk must lie in [0, 1], got {risk}")
    if confidence_level is not None and not 0.0 < confidence_level < 1.0:
        raise ValueError(f"confidence_level must lie in (0, 1), got {confidence_level}")
    scores, errors = _scores_and_errors(confidence, correct)
    thresholds, group = np.unique(-scores, return_inverse=True)  # most confident first, ties together
    answered = np.cumsum(np.bincount(group))
    wrong = np.cumsum(np.bincount(group, weights=errors))
    bounds = (wrong + unseen_errors) / (answered + unseen_errors)
    if confidence_level is not None:
        miss = (1.0 - confidence_level) / len(thresholds)
        upper = beta.ppf(1.0 - miss, wrong + 1, np.maximum(answered - wrong, 1))
        bounds = np.where(wrong < answered, upper, 1.0)
    allowed = np.flatnonzero(bounds <= risk)
    if len(allowed) == 0:
        return RiskThreshold(threshold=float("inf"), coverage=0.0, risk=0.0, bound=0.0)
    last = allowed[-1]
    return RiskThreshold(
        threshold=float(-thresholds[last]),
        coverage=float(answered[last] / len(scores)),
        risk=float(wrong[last] / answered[last]),
        bound=float(bounds[last]),
    )


def _scores_and_errors(confidence: ArrayLike, correct: ArrayLike) -> tuple[Array, Array]:
    scores = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != right.shape or len(scores) == 0 or np.isnan(scores).any():
        shapes = f"{scores.shape} and {right.shape}"
        raise ValueError(f"confidence and correct must be (M,), M > 0, and not NaN; got {shapes}")
    return scores, 1.0 - right
