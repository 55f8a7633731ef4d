"""Counts of bytes and operations against those of the plain products."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bayes_clip.kernels import roofline
from bayes_clip.kernels.roofline import Work
from bayes_clip.rates import Rates

SIZES = (3, 16, 5, 7)


@pytest.mark.parametrize("removed, products", [(5, 7), (0, 7), (5, 0)])
def test_operations_of_a_visit_are_those_of_its_products(removed, products):
    classes, features = 3, 16
    covariance = torch.ones(classes, features, features)
    factor = torch.ones(classes, features, removed)
    with FlopCounterMode(display=False) as counted:
        _ = (covariance - factor @ factor.mT) @ torch.ones(features, products)
    assert roofline.visit(classes, features, removed, products).operations == counted.get_total_flops()


def test_bytes_of_a_visit_are_those_of_its_arrays():
    classes, features, removed, products = SIZES
    read = classes * features * (features + 2 * removed) + products * features
    written = classes * features * (features + products)
    assert roofline.visit(*SIZES, itemsize=8).bytes_moved == 8 * (read + written)
    only_read = classes * features * (features + products) + products * features
    assert roofline.visit(classes, features, 0, products).bytes_moved == 4 * only_read


def test_operations_around_the_recursion_are_those_of_its_products():
    classes, features, count = 3, 16, 5
    cross, design = torch.ones(classes, features, count), torch.ones(count, features)
    with FlopCounterMode(display=False) as counted:
        _ = cross @ (design @ cross)
    assert roofline.around(classes, features, count).operations == counted.get_total_flops()


def test_operations_of_the_rows_are_those_of_the_loop():
    """Every pair of later entries j <= k of every row takes a product with its gain and a subtraction."""
    count = 60
    loop = sum(2 for i in range(count) for j in range(i + 1, count) for _ in range(j, count))
    collected, product, modes = count**3 / 3, 2 * count**3, 100 * count
    assert roofline.recursion(1, count).operations == pytest.approx(
        loop + collected + product + modes, rel=0.02
    )


def test_seconds_are_the_longer_of_moving_and_computing():
    assert Work(10, 1000).seconds(Rates(100.0, 10.0)) == 10
    assert Work(10, 1000).seconds(Rates(100.0, 0.1)) == 100


def test_a_filter_of_one_block_visits_twice():
    rates = Rates(float("inf"), 1.0)
    parts = (
        roofline.visit(2, 8, 0, 4),
        roofline.visit(2, 8, 4, 0),
        roofline.around(2, 8, 4),
        roofline.recursion(2, 4),
    )
    assert roofline.filter_seconds(2, 8, 3, 4, rates) == sum(part.bytes_moved for part in parts)


def test_imagenet_size_is_bound_by_arithmetic_and_below_two_seconds():
    """C = 1000, D = 512, N = 16,000 on an H200: computed from published rates, not measured."""
    between, rates = roofline.visit(1000, 512, 64, 64), roofline.H200_CLASS
    assert between.seconds(rates) == between.operations / rates.gemm_flops_per_second
    assert 0.28 < roofline.filter_seconds(1000, 512, 16_000, 64, rates) < 0.4
