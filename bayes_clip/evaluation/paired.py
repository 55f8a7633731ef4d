"""Means with intervals, and paired tests between methods, of a table with one row per draw.

Three seeds cannot tell methods apart that differ by less than their draws do; on the same draws their
difference varies much less. Hence the tests are of differences, draw by draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bayes_clip.evaluation.base_to_new import harmonic
from bayes_clip.evaluation.results import Cell

Row = Mapping[str, Cell]
Method = tuple[str, ...]  # values of METHOD_COLUMNS

LEVEL = 0.95
METHOD_COLUMNS = ("model", "engine")
METRICS = ("accuracy", "nll", "ece")
EVERY = "mean of data sets"
SEEDS, DATA_SETS = "seeds", "data sets"  # what an interval or a test runs over
HARMONIC = "harmonic"

SUMMARY_COLUMNS = (
    *("part", "task", "shots", *METHOD_COLUMNS, "metric"),
    *("over", "count", "mean", "low", "high"),
)
PAIR_COLUMNS = (
    *("part", "task", "shots", "metric", "over", "method", "other", "count"),
    *("difference", "low", "high", "wins", "t_p", "wilcoxon_p", "t_p_holm"),
)


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval by Student's t; no ends where there are fewer than two values."""

    mean: float
    low: float | None
    high: float | None
    count: int


def t_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Mean ± t quantile (n - 1 degrees of freedom) x standard error; exact for independent normal values."""
    numbers = np.asarray(values, dtype=np.float64)
    mean, count = float(numbers.mean()), len(numbers)
    if count < 2:
        return Interval(mean, None, None, count)
    half = float(stats.t.ppf((1 + level) / 2, count - 1) * numbers.std(ddof=1) / np.sqrt(count))
    return Interval(mean, mean - half, mean + half, count)


def paired_p(first: ArrayLike, second: ArrayLike) -> tuple[float | None, float | None]:
    """Two-sided p values of the paired t test and of Wilcoxon's signed rank test; None below two pairs.

    Pairs that are equal throughout give 1. Where all differ by the same the t test has no spread to go by,
    and gives None: accuracies on few test images are so coarse that this happens. The smallest p that
    Wilcoxon's test can give is 2 / 2^n: with five pairs or fewer it never falls below 0.05.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    if len(differences) < 2:
        return None, None
    if not differences.any():
        return 1.0, 1.0
    with warnings.catch_warnings():  # of ties
        warnings.simplefilter("ignore", UserWarning)
        ranked = float(stats.wilcoxon(differences).pvalue)
    if np.allclose(differences, differences[0], rtol=1e-9, atol=0.0):
        return None, ranked
    return float(stats.ttest_1samp(differences, 0.0).pvalue), ranked


def holm(values: Sequence[float]) -> list[float]:
    """p values adjusted for there being several (Holm 1979): any below 0.05 is wrong in 5 % of families."""
    order = np.argsort(values, kind="stable")
    steps = np.asarray(values, dtype=np.float64)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def with_harmonic(rows: Iterable[Row]) -> list[Row]:
    """`rows`, and for each draw with a base and a new part one of the harmonic mean of both accuracies."""
    rows = list(rows)
    same = ("task", "model", "engine", "shots", "seed")
    base = {tuple(str(row[name]) for name in same): row for row in rows if row["part"] == "base"}
    for row in [row for row in rows if row["part"] == "new"]:
        known = base.get(tuple(str(row[name]) for name in same))
        if known is not None:
            mean = harmonic(float(known["accuracy"]), float(row["accuracy"]))
            rows.append({**{name: row[name] for name in same}, "part": HARMONIC, "accuracy": mean})
    return rows


def summary_rows(rows: Iterable[Row]) -> list[dict[str, Cell]]:
    """SUMMARY_COLUMNS for every part, data set (and the mean of all of them), shots, method and metric.

    Of one data set the interval is over seeds: how much the draw of the labels matters, on these test images.
    Of the mean of all data sets there are two: over seeds, the data sets as they are; and over data sets,
    each the mean over its seeds: what to expect of another data set of the kind. A seed that lacks a data set
    is left out of the first, and a method that lacks one has no mean of all.
    """
    found: list[dict[str, Cell]] = []
    for place, values in _by_place(rows).items():
        for method, table in values.items():
            for over, units in _units(table, place[1] == EVERY).items():
                interval = t_interval(list(units.values()))
                part, task, shots, metric = place
                found.append(
                    {
                        **{"part": part, "task": task, "shots": shots},
                        **dict(zip(METHOD_COLUMNS, method, strict=True)),
                        **{"metric": metric, "over": over, "count": interval.count, "mean": interval.mean},
                        **{"low": _cell(interval.low), "high": _cell(interval.high)},
                    }
                )
    return found


def pair_rows(rows: Iterable[Row]) -> list[dict[str, Cell]]:
    """PAIR_COLUMNS for every two methods at every part, data set, shots and metric: `method` less `other`.

    Over the same units as in `summary_rows`, those that both have. `wins`: in how many the first has the
    larger value. `t_p_holm` is adjusted for all pairs of the same part, data set, shots, metric and units.
    """
    found = []
    for place, values in _by_place(rows).items():
        for over in (SEEDS, DATA_SETS):
            family = [
                pair
                for first, second in combinations(values, 2)
                if (pair := _pair(place, over, first, second, values)) is not None
            ]
            tested = [pair for pair in family if pair["t_p"] != ""]
            adjusted = holm([float(pair["t_p"]) for pair in tested])
            for pair, value in zip(tested, adjusted, strict=True):
                pair["t_p_holm"] = value
            found += family
    return found


Place = tuple[str, str, int, str]  # part, data set, shots, metric
Table = dict[tuple[str, str], float]  # (data set, seed) -> value


def _by_place(rows: Iterable[Row]) -> dict[Place, dict[Method, Table]]:
    """The values of every place, method by method; a method that lacks a data set has no mean of them."""
    rows = sorted(with_harmonic(rows), key=lambda row: int(row["shots"]))
    tasks: dict[str, set[str]] = {}
    for row in rows:
        tasks.setdefault(str(row["part"]), set()).add(str(row["task"]))
    found: dict[Place, dict[Method, Table]] = {}
    for metric in METRICS:
        for row in rows:
            value, part = row.get(metric, ""), str(row["part"])
            if value == "":
                continue
            method = tuple(str(row[name]) for name in METHOD_COLUMNS)
            unit = str(row["task"]), str(row["seed"])
            for task in (unit[0], EVERY) if len(tasks[part]) > 1 else (unit[0],):
                place = (part, task, int(row["shots"]), metric)
                found.setdefault(place, {}).setdefault(method, {})[unit] = float(value)
    for place, values in found.items():
        if place[1] == EVERY:
            found[place] = {
                method: table for method, table in values.items() if {*_tasks(table)} == tasks[place[0]]
            }
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[0][1] == EVERY, *item[0][1:3])))


def _units(table: Table, every: bool) -> dict[str, dict[str, float]]:
    """What the values of one method are averaged and compared over: `over` -> unit -> value."""
    seeds = list(dict.fromkeys(seed for _, seed in table))
    if not every:
        return {SEEDS: {seed: value for (_, seed), value in table.items()}}
    tasks = _tasks(table)
    whole = [seed for seed in seeds if all((task, seed) in table for task in tasks)]
    found = {
        SEEDS: {seed: _mean(table[task, seed] for task in tasks) for seed in whole},
        DATA_SETS: {task: _mean(value for (of, _), value in table.items() if of == task) for task in tasks},
    }
    return {over: units for over, units in found.items() if units}


def _tasks(table: Table) -> list[str]:
    return list(dict.fromkeys(task for task, _ in table))


def _pair(
    place: Place, over: str, first: Method, second: Method, values: Mapping[Method, Table]
) -> dict[str, Cell] | None:
    """One row of PAIR_COLUMNS on the draws that both methods have; None where they have none."""
    common = values[first].keys() & values[second].keys()
    left, right = (
        _units({unit: values[method][unit] for unit in sorted(common)}, place[1] == EVERY).get(over, {})
        for method in (first, second)
    )
    if not left:
        return None
    one, two = np.array(list(left.values())), np.array([right[unit] for unit in left])
    interval, (t_p, wilcoxon_p) = t_interval(one - two), paired_p(one, two)
    part, task, shots, metric = place
    return {
        **{"part": part, "task": task, "shots": shots, "metric": metric, "over": over},
        **{"method": named(first), "other": named(second), "count": interval.count},
        **{"difference": interval.mean, "low": _cell(interval.low), "high": _cell(interval.high)},
        "wins": int((one > two).sum()),
        **{"t_p": _cell(t_p), "wilcoxon_p": _cell(wilcoxon_p), "t_p_holm": ""},
    }


def named(method: Method) -> str:
    """A method in words: its model and its engine."""
    return " · ".join(method)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _cell(value: float | None) -> Cell:
    return "" if value is None else value
