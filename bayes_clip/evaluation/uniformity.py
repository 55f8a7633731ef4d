"""Are these ranks uniform, and if not, how not? A simultaneous test on the whole distribution function.

The empirical distribution function of N uniform ranks stays, at every point at once, within a band whose
pointwise level is found by simulating uniform ranks (Säilynoja, Bürkner & Vehtari 2022, "Graphical test for
discrete uniformity", section 2). The p-value is that of the most extreme point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import binom

LEVEL = 0.01  # of one verdict, over all of its quantities: of a hundred sound engines one fails by chance
NULL_DRAWS = 10_000
NOTABLE = 2.0  # standard errors from which a shift or a spread names what is wrong

PASSES, NARROW, WIDE, SHIFTED, MISSHAPEN = "passes", "too narrow", "too wide", "shifted", "misshapen"


@dataclass(frozen=True)
class Uniformity:
    """The test of N ranks in 0..L, and how they depart from uniform, in standard errors of N uniform ranks.

    `shift` is that of the mean (positive: the truth lies above the draws); `spread` that of the variance
    (positive: ranks pile up at both ends, the posterior is too narrow).
    """

    p_value: float
    shift: float
    spread: float


def check_uniform(ranks: np.ndarray, draws: int) -> Uniformity:
    """Test whole-number `ranks` (N,) in 0..`draws` of the truth among `draws` posterior draws."""
    counts = np.bincount(ranks, minlength=draws + 1)
    extreme = _extremes(counts[None], len(ranks))[0]
    null = _null(len(ranks), draws)
    p_value = (1 + np.searchsorted(null, extreme * (1 + 1e-9), side="right")) / (1 + len(null))
    middle = (ranks + 0.5) / (draws + 1) - 0.5
    return Uniformity(
        p_value=float(p_value),
        shift=float(middle.mean() * np.sqrt(12 * len(ranks))),
        spread=float((middle.var() - 1 / 12) * np.sqrt(180 * len(ranks))),
    )


def band(count: int, draws: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound (L,) of the share of `count` ranks below 1..`draws`: a simultaneous band."""
    pointwise = np.quantile(_null(count, draws), level)
    at = np.arange(1, draws + 1) / (draws + 1)
    return binom.ppf(pointwise / 2, count, at) / count, binom.isf(pointwise / 2, count, at) / count


def rejected(p_values: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """Which of several p-values (Q,) are rejected when all are looked at: Holm's step-down correction."""
    order = np.argsort(p_values)
    steps = p_values[order] > level / np.arange(len(p_values), 0, -1)
    last = int(np.argmax(steps)) if steps.any() else len(steps)
    failing = np.zeros(len(p_values), dtype=bool)
    failing[order[:last]] = True
    return failing


def verdict(checks: list[Uniformity], fits: list[bool]) -> str:
    """One word for several quantities: `passes` unless one is rejected, else what is most wrong.

    `fits` marks quantities that say how well the weights fit the labels (log likelihoods): there low ranks,
    draws that fit better than the truth, mean too narrow, and high ranks too wide.
    """
    failing = rejected(np.array([check.p_value for check in checks]))
    named: dict[str, float] = {}
    for check, is_fit, fails in zip(checks, fits, failing, strict=True):
        if fails:
            word, strength = _what(check, is_fit)
            named[word] = max(named.get(word, 0.0), strength)
    return max(named, key=lambda word: named[word]) if named else PASSES


def _what(check: Uniformity, is_fit: bool) -> tuple[str, float]:
    """What one rejected quantity says is wrong, and by how many standard errors."""
    shift, spread = abs(check.shift), abs(check.spread)
    if max(shift, spread) < NOTABLE:
        return MISSHAPEN, 0.0
    if is_fit:  # the least certain witness speaks last
        return (NARROW if check.shift < 0 else WIDE), 0.0
    if shift > spread:
        return SHIFTED, shift
    return (NARROW if check.spread > 0 else WIDE), spread


def _extremes(counts: np.ndarray, total: int) -> np.ndarray:
    """Smallest two-sided binomial tail over the points of each distribution function; `counts` (M, L + 1)."""
    below = counts.cumsum(1)[:, :-1]
    tails = _tails(total, counts.shape[1] - 1)
    return np.min(tails[below, np.arange(below.shape[1])], axis=1)


@lru_cache(maxsize=32)
def _tails(total: int, draws: int) -> np.ndarray:
    """Two-sided tail probability of k of `total` ranks below 1..`draws`, (total + 1, draws)."""
    at = np.arange(1, draws + 1) / (draws + 1)
    k = np.arange(total + 1)[:, None]
    return np.minimum(1.0, 2 * np.minimum(binom.cdf(k, total, at), binom.sf(k - 1, total, at)))


@lru_cache(maxsize=32)
def _null(total: int, draws: int) -> np.ndarray:
    """The extremes of truly uniform ranks, sorted: the reference of the test."""
    generator = np.random.default_rng(0)
    uniform = np.full(draws + 1, 1 / (draws + 1))
    parts = [generator.multinomial(total, uniform, size=NULL_DRAWS // 10) for _ in range(10)]
    return np.sort(np.concatenate([_extremes(part, total) for part in parts]))
