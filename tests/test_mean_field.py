"""The closed form through a grid of variances against all pairs of classes written out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from small_problems import assert_near
from torch import Tensor

from bayes_clip import mean_field
from bayes_clip.mean_field import FEWEST_CLASSES, MARGINS, probabilities

CASES = {  # spread of the means, smallest and largest variance
    "peaked": (8.0, 0.3, 0.6),
    "flat": (0.3, 1.0, 5.0),
    "uncertain": (4.0, 5.0, 15.0),
    "certain": (4.0, 0.0, 0.0),
    "variances beyond any grid": (5.0, 0.0, 60.0),
}


def all_pairs(mean: Tensor, variance: Tensor) -> Tensor:
    spread = (1 + math.pi / 8 * (variance[:, :, None] + variance[:, None, :])).sqrt()
    log_odds = (mean[:, None, :] - mean[:, :, None]) / spread
    return (-log_odds.logsumexp(-1)).softmax(-1)


def moments(
    width: float, low: float, high: float, *, rows: int = 5, classes: int = 140, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = width * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return mean, low + (high - low) * torch.rand(rows, classes, generator=generator, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    width=st.floats(0.01, 30),
    low=st.floats(0, 50),
    ratio=st.floats(1, 4),
    seed=st.integers(0, 2**20),
    classes=st.sampled_from([2, 127, 128, 160]),
)
def test_it_is_the_sum_over_all_pairs(
    width: float, low: float, ratio: float, seed: int, classes: int
) -> None:
    mean, variance = moments(width, low, ratio * low, rows=3, classes=classes, seed=seed)
    found, wanted = probabilities(mean, variance), all_pairs(mean, variance)
    assert float((found - wanted).abs().max()) < 2e-9
    seen = wanted > 1e-200
    assert float((found / wanted - 1)[seen].abs().max()) < 2e-6


@pytest.mark.parametrize("case", CASES)
def test_a_thousand_classes(case: str) -> None:
    mean, variance = moments(*CASES[case], rows=2, classes=1000)
    assert float((probabilities(mean, variance) - all_pairs(mean, variance)).abs().max()) < 2e-9
    by_grid = bool(mean_field._orders(mean, variance).all())
    assert by_grid == (case != "variances beyond any grid"), "the grid must be used where it can be"


@pytest.mark.parametrize("order", MARGINS)
def test_every_grid_is_exact_for_one_variance(order: int) -> None:
    mean, variance = moments(3.0, 2.0, 2.0)
    sums = mean_field._sums_by_grid(mean, variance, order)
    assert_near(sums.log(), mean_field._sums_by_pairs(mean, variance).log())


def test_a_row_is_the_same_whatever_is_beside_it() -> None:
    mean, variance = (
        torch.cat(parts) for parts in zip(*(moments(*case) for case in CASES.values()), strict=True)
    )
    whole = probabilities(mean, variance)
    order = torch.randperm(len(mean), generator=torch.Generator().manual_seed(0))
    assert_near(probabilities(mean[order], variance[order], budget=1), whole[order], 1e-14)
    for row in (0, 7, 24):
        assert_near(probabilities(mean[row : row + 1], variance[row : row + 1])[0], whole[row], 1e-14)


def test_an_offset_and_the_order_of_the_classes_change_nothing() -> None:
    mean, variance = moments(4.0, 1.0, 3.0)
    whole = probabilities(mean, variance)
    assert_near(probabilities(mean + 25, variance), whole)
    assert_near(whole.sum(-1), torch.ones(5).double())
    order = torch.randperm(140, generator=torch.Generator().manual_seed(0))
    assert_near(probabilities(mean[:, order], variance[:, order]), whole[:, order])


def test_extremes_stay_finite() -> None:
    for scale in (1e-30, 1e3, 1e8):
        for found in (
            probabilities(scale * moments(1, 0, 1)[0], moments(1, 0, 1)[1]),
            probabilities(moments(1, 0, 1)[0], scale * moments(1, 0, 1)[1]),
            probabilities(*(scale * tensor.float() for tensor in moments(1, 0, 1))),
        ):
            assert bool(found.isfinite().all())
            assert_near(found.double().sum(-1), torch.ones(5).double(), 1e-6)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_row_that_is_not_finite_harms_no_other(broken: float) -> None:
    mean, variance = moments(4.0, 1.0, 3.0)
    whole = probabilities(mean, variance)
    mean[2, 5] = broken
    found = probabilities(mean, variance)
    assert torch.equal(found[[0, 1, 3, 4]], whole[[0, 1, 3, 4]])
    assert not found[2].isfinite().all() or found[2].argmax() == 5


def test_float32_is_computed_in_float64() -> None:
    mean, variance = (tensor.float() for tensor in moments(4.0, 1.0, 3.0))
    found = probabilities(mean, variance)
    assert found.dtype == torch.float32
    assert torch.equal(found, probabilities(mean.double(), variance.double()).float())


@pytest.mark.parametrize("case", ["peaked", "variances beyond any grid"])
def test_it_stays_within_its_budget(case: str) -> None:
    mean, variance = moments(*CASES[case], rows=200)
    probabilities(mean[:2], variance[:2])  # tables of errors, made once
    budget = 2**20
    assert 20 * budget < 8 * 200 * 140**2
    with LargestTensor() as seen:
        probabilities(mean, variance, budget)
    assert seen.bytes <= budget


def test_few_classes_are_paired() -> None:
    mean, variance = moments(1.0, 1.0, 2.0, classes=FEWEST_CLASSES - 1)
    assert not mean_field._orders(mean, variance).any()
