"""Intervals and paired tests against scipy's own and formulas written out."""

from __future__ import annotations

from itertools import product
from math import comb, sqrt
from statistics import mean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from small_problems import EXACT

from bayes_clip.evaluation.paired import (
    EVERY,
    Row,
    holm,
    pair_rows,
    paired_p,
    summary_rows,
    t_interval,
    with_harmonic,
)

values = st.lists(st.floats(-10, 10), min_size=2, max_size=12)


def rows_of(
    tasks: tuple[str, ...] = ("a", "b"),
    seeds: tuple[int, ...] = (1, 2, 3),
    engines: tuple[str, ...] = ("map", "ekf", "vi"),
    part: str = "all",
) -> list[Row]:
    random = np.random.default_rng(0)
    return [
        {
            **{"task": task, "part": part, "model": "m", "engine": engine, "shots": str(shots)},
            **{"seed": str(seed), "accuracy": str(random.random()), "nll": random.random(), "ece": ""},
        }
        for task, seed, engine, shots in product(tasks, seeds, engines, (10, 2))
    ]


def value_of(rows: list[Row], task: str, engine: str, shots: int, seed: int, metric: str) -> float:
    wanted = (task, engine, str(shots), str(seed))
    (found,) = (
        row[metric] for row in rows if tuple(row[n] for n in ("task", "engine", "shots", "seed")) == wanted
    )
    return float(found)


@given(values)
def test_the_interval_is_students(numbers: list[float]) -> None:
    interval = t_interval(numbers)
    half = stats.t.ppf(0.975, len(numbers) - 1) * stdev(numbers) / sqrt(len(numbers))
    assert interval.mean == pytest.approx(mean(numbers), abs=EXACT)
    assert interval.low == pytest.approx(mean(numbers) - half, abs=1e-8)
    assert interval.high == pytest.approx(mean(numbers) + half, abs=1e-8)
    assert interval.count == len(numbers)


def test_one_value_has_no_interval() -> None:
    interval = t_interval([0.25])
    assert (interval.mean, interval.low, interval.high, interval.count) == (0.25, None, None, 1)


def test_the_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    intervals = [t_interval(row) for row in draws]
    covered = np.mean([one.low <= 0 <= one.high for one in intervals])  # type: ignore[operator]
    assert abs(covered - 0.95) < 4 * sqrt(0.95 * 0.05 / 4000)


def test_paired_p_values_are_those_of_scipy() -> None:
    random = np.random.default_rng(1)
    for count in (3, 5, 11):
        first, second = random.normal(size=(2, count))
        t_p, wilcoxon_p = paired_p(first, second)
        assert t_p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=EXACT)
        assert wilcoxon_p == pytest.approx(stats.wilcoxon(first, second).pvalue, abs=EXACT)
        assert paired_p(second, first) == pytest.approx((t_p, wilcoxon_p), abs=EXACT)


def test_wilcoxon_counts_signs_where_all_are_alike() -> None:
    assert paired_p([2.0, 4.0, 7.0], [1.0, 1.0, 1.0])[1] == pytest.approx(2 / 2**3)


def test_pairs_without_spread() -> None:
    assert paired_p([0.5], [0.4]) == (None, None)
    assert paired_p([0.5, 0.6], [0.5, 0.6]) == (1.0, 1.0)
    assert paired_p([0.1, 0.2, 0.3], [0.0, 0.1, 0.2]) == (None, pytest.approx(0.25))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_adjustment_is_its_definition(numbers: list[float]) -> None:
    order = sorted(range(len(numbers)), key=lambda place: numbers[place])
    adjusted = holm(numbers)
    for rank, place in enumerate(order):
        steps = [(len(numbers) - other) * numbers[order[other]] for other in range(rank + 1)]
        assert adjusted[place] == pytest.approx(min(1.0, max(steps)), abs=EXACT)


def test_every_part_of_the_summary_is_the_mean_of_its_units() -> None:
    rows = rows_of()
    summary = summary_rows(rows)
    assert {row["metric"] for row in summary} == {"accuracy", "nll"}  # the column of ECE is empty
    of_task = [row for row in summary if row["task"] == "a"]
    assert len(of_task) == 3 * 2 * 2 and {row["over"] for row in of_task} == {"seeds"}
    assert [row["shots"] for row in of_task[:6]] == [2] * 6
    for row in summary:
        engine, shots, metric = str(row["engine"]), int(row["shots"]), str(row["metric"])
        table = np.array(
            [[value_of(rows, task, engine, shots, seed, metric) for seed in (1, 2, 3)] for task in ("a", "b")]
        )
        if row["task"] == EVERY:
            units = table.mean(0) if row["over"] == "seeds" else table.mean(1)
        else:
            units = table[0 if row["task"] == "a" else 1]
        low, high = stats.t.interval(0.95, len(units) - 1, units.mean(), stats.sem(units))
        assert row["count"] == len(units)
        assert (row["mean"], row["low"], row["high"]) == pytest.approx((units.mean(), low, high), abs=EXACT)


def test_pairs_are_compared_on_the_same_draws() -> None:
    rows = rows_of()
    pairs = pair_rows(rows)
    assert len([row for row in pairs if row["task"] == "a"]) == comb(3, 2) * 2 * 2
    for row in pairs:
        shots, metric = int(row["shots"]), str(row["metric"])
        first, second = (
            np.array(
                [
                    [
                        value_of(rows, task, str(row[side]).split(" · ")[1], shots, seed, metric)
                        for seed in (1, 2, 3)
                    ]
                    for task in ("a", "b")
                ]
            )
            for side in ("method", "other")
        )
        if row["task"] == EVERY:
            first, second = (table.mean(0 if row["over"] == "seeds" else 1) for table in (first, second))
        else:
            first, second = (table[0 if row["task"] == "a" else 1] for table in (first, second))
        assert row["difference"] == pytest.approx((first - second).mean(), abs=EXACT)
        assert row["t_p"] == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=EXACT)
        assert row["wilcoxon_p"] == pytest.approx(stats.wilcoxon(first, second).pvalue, abs=EXACT)
        assert row["wins"] == (first > second).sum()
    family = [
        row
        for row in pairs
        if (row["task"], row["shots"], row["metric"], row["over"]) == ("a", 2, "accuracy", "seeds")
    ]
    assert [row["t_p_holm"] for row in family] == pytest.approx(holm([float(row["t_p"]) for row in family]))


def test_a_method_that_lacks_a_draw_is_compared_on_those_it_has() -> None:
    rows = rows_of(tasks=("a",))
    rows = [row for row in rows if not (row["engine"] == "vi" and row["seed"] == "2")]
    counts = {(row["method"], row["other"]): row["count"] for row in pair_rows(rows) if row["shots"] == 2}
    assert counts == {("m · map", "m · ekf"): 3, ("m · map", "m · vi"): 2, ("m · ekf", "m · vi"): 2}


def test_a_method_that_lacks_a_data_set_has_no_mean_of_all() -> None:
    rows = [row for row in rows_of() if not (row["engine"] == "vi" and row["task"] == "b")]
    every = [row for row in summary_rows(rows) if row["task"] == EVERY]
    assert {row["engine"] for row in every} == {"map", "ekf"}
    assert {row["engine"] for row in summary_rows(rows) if row["task"] == "a"} == {"map", "ekf", "vi"}


def test_base_and_new_have_a_harmonic_mean() -> None:
    rows = rows_of(part="base") + rows_of(seeds=(1, 2), part="new")
    added = [row for row in with_harmonic(rows) if row["part"] == "harmonic"]
    assert len(added) == 2 * 2 * 3 * 2
    base, new = rows[0], next(row for row in rows if row["part"] == "new")
    both = float(base["accuracy"]), float(new["accuracy"])
    assert added[0]["accuracy"] == pytest.approx(2 / (1 / both[0] + 1 / both[1]), abs=EXACT)
