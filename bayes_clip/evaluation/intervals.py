"""Intervals of every score of a run: how much it depends on which rows the query set happens to hold.

They are of one fit: how much the draw of the labels matters is what several seeds tell (`paired`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from bayes_clip.evaluation import bootstrap
from bayes_clip.evaluation.bootstrap import CALIBRATION, PLUG_IN, Scored, blocks, random_signs, resamples
from bayes_clip.evaluation.metrics import Array
from bayes_clip.evaluation.results import SCORE_COLUMNS, Cell, Comparison, Run

LEVEL = 0.95
RESAMPLES, SIGNS = 500, 500
SEED = 0
ROWS, OOD_ROWS, NOISE = 0, 1, 2  # what random numbers are for
INTERVAL_COLUMNS = ("task", "model", "engine", "shots", "seed", "metric", "value", "low", "high")


@dataclass(frozen=True)
class Resampled:
    """A run, its scores on resamples of the query rows (B,) each, and the noise of those in CALIBRATION."""

    run: Run
    scores: dict[str, Array]
    noise: dict[str, Array]

    def interval(self, metric: str, level: float = LEVEL) -> tuple[float, float]:
        """The ends of the interval of one of SCORE_COLUMNS.

        Accuracy: the exact interval of Clopper & Pearson, which has a width where every row is right.

        NLL, Brier, AUROC, FPR95 and AURC: the percentile interval. It covers about as often as it says
        (`analysis/interval_coverage.py`), keeps to the range of the score, and corrections of its bias (BCa)
        change it by less than its own Monte-Carlo error.

        Calibration errors e, the norm of sums T of residuals, are too large on average, and larger still on
        resamples: percentile and BCa intervals of a calibrated model never hold its zero. Here the true
        error lies above e − |T − E T|, whose norm residuals with random signs tell, and (Jensen) below the
        mean of e, from which e strays by no more than resamples do from theirs. Both ends are bounds for the
        error of the same bins: the interval is too wide rather than too narrow. It begins at 0 where a
        calibrated model might show as much. For `debiased_ece` it is that of the same without the debiasing.
        """
        tail = (1 - level) / 2
        if metric == "accuracy":
            return _of_share(float(self.run.row[metric]), len(self.run.labels), tail)
        found = self.scores[metric]
        if metric not in CALIBRATION:
            low, high = np.quantile(found, (tail, 1 - tail))
            return float(low), float(high)
        name = PLUG_IN if metric == "debiased_ece" else metric
        if metric == "debiased_ece":
            found, value = self.scores[PLUG_IN], _plug_in(self.run)
        else:
            value = float(self.run.row[metric])
        low = max(0.0, value - float(np.quantile(self.noise[name], 1 - tail)))
        return low, value + float(np.quantile(found, 1 - tail) - found.mean())


def resampled(runs: Sequence[Run], count: int = RESAMPLES, seed: int = SEED) -> list[Resampled]:
    """Every run on the same resamples, where the query sets are of one size: their differences are paired."""
    found: dict[int, Resampled] = {}
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, run in enumerate(runs):
        outside = 0 if run.ood_novelty is None else len(run.ood_novelty)
        sizes.setdefault((len(run.labels), outside), []).append(index)
    for (rows, outside), members in sizes.items():
        counts = resamples(rows, count, (seed, ROWS, rows))
        beyond = resamples(outside, count, (seed, OOD_ROWS, outside)) if outside else None
        signs = random_signs(rows, SIGNS, (seed, NOISE, rows))
        for index in members:
            found[index] = _of_run(runs[index], counts, beyond, signs)
    return [found[index] for index in range(len(runs))]


def interval_rows(every: Sequence[Resampled], level: float = LEVEL) -> list[dict[str, Cell]]:
    """INTERVAL_COLUMNS: one row for every run and score that it has."""
    rows: list[dict[str, Cell]] = []
    for one in every:
        named = {name: one.run.row.get(name, "") for name in INTERVAL_COLUMNS[:5]}
        for metric in SCORE_COLUMNS:
            value = one.run.row.get(metric, "")
            if value == "" or metric not in one.scores:
                continue
            low, high = one.interval(metric, level)
            rows.append({**named, "metric": metric, "value": value, "low": low, "high": high})
    return rows


def intervals(comparison: Comparison) -> list[dict[str, Cell]]:
    """`interval_rows` of all runs of a comparison."""
    return interval_rows(resampled(comparison.runs))


def _of_run(run: Run, counts: np.ndarray, beyond: np.ndarray | None, signs: np.ndarray) -> Resampled:
    scored = Scored(run)
    parts = []
    for part, block in blocks(counts):
        ood = None if beyond is None else beyond[:, part].astype(np.float64)
        parts.append(scored.on(block, ood))
    noise = [scored.noise(block) for _, block in blocks(signs)]
    return Resampled(run, _joined(parts), _joined(noise))


def _of_share(share: float, rows: int, tail: float) -> tuple[float, float]:
    right = round(share * rows)
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, rows - right + 1))
    high = 1.0 if right == rows else float(beta.ppf(1 - tail, right + 1, rows - right))
    return low, high


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _plug_in(run: Run) -> float:
    """The root mean squared gap of the equal-mass bins of the rows as they are."""
    once = np.ones((len(run.labels), 1))
    return float(bootstrap.Scored(run).on(once, None)[PLUG_IN][0])
