"""Two fits on the same query rows: is what tells them apart more than which rows there happen to be?

The tests are of differences, row by row: two fits err on much the same rows, so that their difference varies
much less than either. They say nothing of another draw of the labels; `paired` tests that, over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.stats import binomtest

from bayes_clip.evaluation.bootstrap import of_rows
from bayes_clip.evaluation.intervals import LEVEL, SEED, Resampled, resampled
from bayes_clip.evaluation.metrics import NUM_BINS, Array, bin_index, confidence_and_correct
from bayes_clip.evaluation.paired import METHOD_COLUMNS, SEEDS, holm, named, pair_rows
from bayes_clip.evaluation.results import Cell, Comparison, Run

QUERY_ROWS = "query rows"  # beside `paired.SEEDS`
SWAPS = 999  # random choices of rows that change places: the smallest p is 1/1000
TESTS = {
    "accuracy": "McNemar exact",
    "nll": "random signs",
    "brier": "random signs",
    "ece": "random swaps",
}
PAIRED_COLUMNS = (
    *("task", "shots", "seed", "metric", "over", "method", "other", "count"),
    *("difference", "low", "high", "wins", "test", "p", "p_holm", "wilcoxon_p"),
)


def mcnemar_p(first: Array, second: Array) -> float:
    """McNemar's exact two-sided p value of two (M,) vectors of right (1) and wrong (0) answers.

    Of the rows that only one of them gets right, each is as often right as the other: a fair coin (exact
    binomial test). 1 where there is no such row.
    """
    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def sign_p(differences: Array, signs: Array) -> Array:
    """Two-sided permutation p values (k,) of the means of k rows of differences (k, M).

    If the two fits were alike, every difference would as soon have the other sign; `signs` (M, S) are random
    ones. Exact for S + 1 choices, the one that was found among them.
    """
    found = np.abs(differences.sum(1))[:, None]
    as_large = (np.abs(differences @ signs) >= found * (1 - 1e-12)).sum(1)
    return np.asarray((as_large + 1) / (signs.shape[1] + 1))


def swap_p(first: Run, second: Run, signs: Array) -> float:
    """Permutation p value of the difference of two ECEs, where rows change places between the fits at random.

    The null hypothesis is stronger than equal ECE: that on each row either fit could have said either thing.
    """
    sums = np.zeros((2, NUM_BINS, len(first.labels)))
    for which, run in enumerate((first, second)):
        sure, right = confidence_and_correct(run.probabilities, run.labels)
        sums[which, bin_index(sure), np.arange(len(sure))] = sure - right
    middle, half = sums.mean(0).sum(1, keepdims=True), (sums[0] - sums[1]) / 2
    used = half.any(axis=1)
    moved = half[used] @ signs

    def gap(shift: Array) -> Array:
        return np.abs(np.abs(middle[used] + shift).sum(0) - np.abs(middle[used] - shift).sum(0))

    found = gap(half[used].sum(1, keepdims=True))[0]
    return float(((gap(moved) >= found * (1 - 1e-12)).sum() + 1) / (signs.shape[1] + 1))


def paired_rows(comparison: Comparison, every: Sequence[Resampled] | None = None) -> list[dict[str, Cell]]:
    """PAIRED_COLUMNS for every two methods of a task, shots and metric: over seeds, and over query rows.

    `difference` is `method` less `other`, `low` and `high` its 95 % interval: over seeds by Student's t, over
    query rows from both scores on the same resamples (percentiles). `wins`: seeds in which `method` has the
    larger value; rows on which it is right and `other` wrong, or has the larger loss. `test`: paired t, with
    Wilcoxon's signed rank test beside it; McNemar's exact for accuracy; random signs of the rows' differences
    for NLL and Brier; random swaps of rows for ECE. `p_holm`: for all pairs of the same task, shots, seed and
    metric. Over seeds there are rows for two seeds and more.
    """
    return [*_over_seeds(comparison.runs), *_over_rows(every or resampled(comparison.runs))]


def _over_seeds(runs: Sequence[Run]) -> list[dict[str, Cell]]:
    drawn = [{**run.row, "part": ""} for run in runs if run.row["shots"] != "" and run.row["seed"] != ""]
    found: list[dict[str, Cell]] = []
    tasks = list(dict.fromkeys(str(row["task"]) for row in drawn))
    for task in tasks:  # one by one: no mean of all tasks is wanted here
        for pair in pair_rows([row for row in drawn if row["task"] == task]):
            if int(pair["count"]) < 2 or pair["over"] != SEEDS:
                continue
            kept = {name: pair.get(name, "") for name in PAIRED_COLUMNS}
            found.append({**kept, "test": "paired t", "p": pair["t_p"], "p_holm": pair["t_p_holm"]})
    return found


def _over_rows(every: Sequence[Resampled]) -> list[dict[str, Cell]]:
    places: dict[tuple[Cell, ...], list[Resampled]] = {}
    for one in every:
        key = (one.run.row["task"], one.run.row["shots"], one.run.row["seed"])
        places.setdefault(key, []).append(one)
    found: list[dict[str, Cell]] = []
    for place, members in places.items():
        if len(members) > 1:
            found += _at_place(place, members)
    return found


def _at_place(place: tuple[Cell, ...], members: Sequence[Resampled]) -> list[dict[str, Cell]]:
    count = len(members[0].run.labels)
    coins = np.random.default_rng((SEED, count)).integers(0, 2, (count, SWAPS))
    signs = (1 - 2 * coins).astype(np.float64)
    scores = [of_rows(one.run) for one in members]
    by_metric: dict[str, list[dict[str, Cell]]] = {metric: [] for metric in TESTS}
    for first, second in combinations(range(len(members)), 2):
        left, right = members[first], members[second]
        apart = scores[first] - scores[second]
        p = dict(zip(("nll", "brier"), sign_p(apart[1:], signs), strict=True))
        p["accuracy"] = mcnemar_p(scores[first][0], scores[second][0])
        p["ece"] = swap_p(left.run, right.run, signs)
        wins = dict(zip(("accuracy", "nll", "brier"), (apart > 0).sum(1), strict=True))
        for metric in TESTS:
            ends = np.quantile(left.scores[metric] - right.scores[metric], ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
            by_metric[metric].append(
                {
                    **dict(zip(("task", "shots", "seed"), place, strict=True)),
                    **{"metric": metric, "over": QUERY_ROWS},
                    **{"method": _named(left.run), "other": _named(right.run), "count": count},
                    "difference": float(left.run.row[metric]) - float(right.run.row[metric]),
                    **{"low": float(ends[0]), "high": float(ends[1])},
                    "wins": int(wins[metric]) if metric in wins else "",
                    **{"test": TESTS[metric], "p": float(p[metric]), "p_holm": "", "wilcoxon_p": ""},
                }
            )
    for pairs in by_metric.values():
        for pair, adjusted in zip(pairs, holm([float(pair["p"]) for pair in pairs]), strict=True):
            pair["p_holm"] = adjusted
    return [pair for pairs in by_metric.values() for pair in pairs]


def _named(run: Run) -> str:
    return named(tuple(str(run.row[name]) for name in METHOD_COLUMNS))
