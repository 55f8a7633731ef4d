"""How often central credible intervals hold the truth, read off its ranks among posterior draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

LEVELS = (0.5, 0.8, 0.95)
BAND = 0.99  # over all levels together


@dataclass(frozen=True)
class Coverage:
    """The share of true values inside the central interval of one level."""

    level: float
    share: float  # mean over the quantities
    low: float  # band of a sound posterior
    high: float
    lowest: float  # the worst quantity on either side
    highest: float

    @property
    def inside(self) -> bool:
        """Whether the mean share lies in the band."""
        return self.low <= self.share <= self.high


def coverage(ranks: np.ndarray, draws: int) -> list[Coverage]:
    """Coverage at 50, 80 and 95 % from `ranks` (N, Q) in 0..`draws`; the truth's rank among that many draws.

    An interval is exact where (1 − level)/2 of the `draws` + 1 ranks is a whole number, as with 199 draws.
    The band is binomial in the N simulations: quantities of one simulation hang together, so their mean is
    held to the band of a single one, which is cautious.
    """
    total = len(ranks)
    found = []
    for level in LEVELS:
        cut = (1 - level) / 2 * (draws + 1)
        inside = ((ranks + 0.5 > cut) & (ranks + 0.5 < draws + 1 - cut)).mean(0)
        tail = (1 - BAND) / len(LEVELS) / 2
        low, high = binom.ppf(tail, total, level) / total, binom.isf(tail, total, level) / total
        found.append(
            Coverage(
                level, float(inside.mean()), float(low), float(high), float(inside.min()), float(inside.max())
            )
        )
    return found
