"""Tests over query rows against scipy and by their own promise: equals differ as often as p says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_runs import made_run, softmax
from scipy.stats import binom

from bayes_clip.evaluation.bootstrap import of_rows
from bayes_clip.evaluation.intervals import resampled
from bayes_clip.evaluation.results import Comparison, Run, score
from bayes_clip.evaluation.row_tests import (
    PAIRED_COLUMNS,
    QUERY_ROWS,
    mcnemar_p,
    paired_rows,
    sign_p,
    swap_p,
)


def blurred(run: Run, seed: int, strength: float, engine: str = "map", fit: int = 0) -> Run:
    """The run with noise on its log probabilities."""
    noise = np.random.default_rng(seed).normal(size=run.probabilities.shape)
    probabilities = softmax(np.log(run.probabilities) + strength * noise)
    row = {**run.row, "engine": engine, "seed": fit, **score(probabilities, run.labels, run.novelty)}
    return replace(run, row=row, probabilities=probabilities)


def random_choices(rows: int, count: int = 499) -> np.ndarray:
    return 1.0 - 2.0 * np.random.default_rng(7).integers(0, 2, (rows, count))


def test_mcnemar_is_the_binomial_of_the_rows_that_tell() -> None:
    first, second = np.array([1, 1, 1, 1, 0, 1, 0.0]), np.array([0, 0, 0, 0, 1, 1, 0.0])
    assert mcnemar_p(first, second) == pytest.approx(2 * binom.cdf(1, 5, 0.5))
    assert mcnemar_p(second, first) == mcnemar_p(first, second)
    assert mcnemar_p(first, first) == 1.0


def test_sign_test_of_few_rows_is_that_of_all_signs() -> None:
    differences = np.array([[0.3, 0.1, 0.5, -0.1]])
    every = np.array([[1 if k >> i & 1 else -1 for k in range(16)] for i in range(4)], dtype=float)
    wanted = np.mean(np.abs(differences @ every) >= 0.8 - 1e-12)
    assert sign_p(differences, every)[0] == pytest.approx((16 * wanted + 1) / 17)


def test_equals_are_told_apart_as_often_as_p_says() -> None:
    """Two blurs of one run that are alike in law: p below 0.2 in a fifth of the cases, for every test."""
    found = {"accuracy": [], "nll": [], "ece": []}
    for seed in range(60):
        run = made_run(80, seed)
        one, other = blurred(run, 2 * seed, 0.7), blurred(run, 2 * seed + 1, 0.7)
        apart = of_rows(one) - of_rows(other)
        found["nll"].append(sign_p(apart[1:2], random_choices(80, 199))[0])
        found["ece"].append(swap_p(one, other, random_choices(80, 199)))
        found["accuracy"].append(mcnemar_p(of_rows(one)[0], of_rows(other)[0]))
    shares = {name: float(np.mean(np.array(values) <= 0.2)) for name, values in found.items()}
    assert 0.07 < shares["nll"] < 0.33 and 0.07 < shares["ece"] < 0.33, shares  # 0.2 ± 3 standard errors
    assert shares["accuracy"] < 0.33, shares  # exact tests of counts are cautious


def test_swaps_are_those_of_the_rows() -> None:
    """One random choice by hand: rows with sign -1 change places."""
    run = made_run(40, 0)
    one, other = blurred(run, 1, 0.2), blurred(run, 2, 2.0)
    sign = random_choices(40, 1)
    swapped = sign[:, 0] < 0
    mixed = [
        np.where(swapped[:, None], b.probabilities, a.probabilities) for a, b in ((one, other), (other, one))
    ]
    moved = abs(
        score(mixed[0], run.labels, run.novelty)["ece"] - score(mixed[1], run.labels, run.novelty)["ece"]
    )
    found = abs(one.row["ece"] - other.row["ece"])
    assert swap_p(one, other, sign) == (2 / 2 if moved >= found else 1 / 2)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    runs = []
    for fit in range(3):
        run = replace(made := made_run(120, 5), row={**made.row, "seed": fit})
        runs += [run, blurred(run, 10 + fit, 0.05, "map", fit), blurred(run, 20 + fit, 2.0, "zero_shot", fit)]
    return paired_rows(Comparison(tuple(runs), {}, {}), resampled(runs, 50))


def test_rows_of_pairs(rows: list[dict[str, object]]) -> None:
    assert all(tuple(row) == PAIRED_COLUMNS for row in rows)
    seeds = [row for row in rows if row["over"] == "seeds"]
    assert len(seeds) == 3 * 3 and {row["test"] for row in seeds} == {"paired t"}
    over = [row for row in rows if row["over"] == QUERY_ROWS]
    assert len(over) == 3 * 3 * 4 and all(row["p"] <= row["p_holm"] for row in over)
    worse = [row for row in over if "zero_shot" in str(row["other"]) and row["metric"] == "nll"]
    assert all(row["p_holm"] < 0.01 and row["high"] < 0 for row in worse)
    assert {row["seed"] for row in worse} == {0, 1, 2}


def test_one_fit_alone_has_nothing_to_be_compared_with() -> None:
    assert paired_rows(Comparison((made_run(50, 0),), {}, {})) == []
