from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.inference.batches import (
    ORDERS,
    balanced_folds,
    batches,
    default_batch_size,
    row_order,
    shot_numbers,
)

labels_lists = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(torch.tensor)
seeds = st.integers(0, 2**32 - 1)


def naive_shot_numbers(labels: Tensor) -> list[int]:
    values = labels.tolist()
    return [values[:row].count(value) for row, value in enumerate(values)]


@given(labels=labels_lists)
def test_shot_numbers_count_the_earlier_rows_of_the_class(labels: Tensor) -> None:
    assert shot_numbers(labels).tolist() == naive_shot_numbers(labels)


@given(labels=labels_lists, order=st.sampled_from(sorted(ORDERS)), seed=seeds, size=st.integers(1, 50))
def test_batches_hold_every_row_once_and_reproduce(labels: Tensor, order: str, seed: int, size: int) -> None:
    parts = batches(labels, 5, order, size, seed)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(labels)))
    assert all(len(part) == size for part in parts[:-1]) and 0 < len(parts[-1]) <= size
    again = batches(labels, 5, order, size, seed)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


@given(labels=labels_lists, seed=seeds)
def test_balanced_order_gives_one_shot_of_every_class_after_another(labels: Tensor, seed: int) -> None:
    rows = row_order(labels, "balanced", seed)
    shots = shot_numbers(labels)[rows].tolist()
    assert shots == sorted(shots)


def test_given_order_is_kept_and_the_others_depend_on_the_seed() -> None:
    labels = torch.arange(40) % 10
    assert row_order(labels, "given", 3).tolist() == list(range(40))
    for order in ("random", "balanced"):
        assert not torch.equal(row_order(labels, order, 0), row_order(labels, order, 1))


@given(labels=labels_lists, most=st.integers(2, 8))
def test_folds_hold_every_row_once_and_are_balanced(labels: Tensor, most: int) -> None:
    folds = balanced_folds(labels, most)
    largest = int(torch.bincount(labels).max())
    assert len(folds) == (min(largest, most) if largest > 1 else 0)
    if not folds:
        return
    assert sorted(torch.cat(folds).tolist()) == list(range(len(labels)))
    for value in labels.unique():
        counts = [int((labels[fold] == value).sum()) for fold in folds]
        assert max(counts) - min(counts) <= 1


def test_default_batches_are_whole_shots_of_at_least_about_32_rows() -> None:
    assert [default_batch_size(classes) for classes in (2, 3, 10, 40, 100, 128, 1000)] == [
        *(32, 30, 30, 40, 100, 128, 64)
    ]


def test_default_batches_of_a_joint_covariance_hold_at_most_1024_logits() -> None:
    for covariance in ("full", "kronecker", "low_rank"):
        assert [default_batch_size(classes, covariance) for classes in (3, 32, 47, 2000)] == [30, 32, 21, 1]
    assert default_batch_size(47, "class_block") == default_batch_size(47) == 47
    rows = batches(torch.arange(94) % 47, 47, "balanced", None, 0, "kronecker")
    assert [len(part) for part in rows] == [21, 21, 21, 21, 10]


def test_unknown_orders_and_empty_batches_are_refused() -> None:
    labels = torch.tensor([0, 1])
    with pytest.raises(UserError, match=r"--order ballanced: .* Did you mean 'balanced'"):
        row_order(labels, "ballanced", 0)
    with pytest.raises(UserError, match="--batch-size 0"):
        batches(labels, 2, "given", 0, 0)
