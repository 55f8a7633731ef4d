from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from largest_tensor import LargestTensor

from bayes_clip.memory import by_rows, rows_within


def test_at_least_one_row_fits() -> None:
    assert rows_within(100, 30) == 3
    assert rows_within(100, 1000) == 1
    assert rows_within(100, 0) == 100


@given(count=st.integers(0, 9), at_once=st.integers(1, 10))
def test_chunks_are_put_together_again(count: int, at_once: int) -> None:
    rows = torch.arange(2.0 * count).reshape(count, 2)
    doubled, first = by_rows(lambda part: (2 * part, part[:, 0]), rows, at_once)
    assert torch.equal(doubled, 2 * rows) and torch.equal(first, rows[:, 0])


def test_nothing_but_the_outputs_and_one_chunk_is_made() -> None:
    rows, watched = torch.ones(1000, 3), []
    with LargestTensor() as seen:
        by_rows(
            lambda part: (part.repeat(1, 100).sum(1),),
            rows,
            10,
            lambda starts: watched.append(starts) or starts,
        )
    assert seen.bytes == 4 * 10 * 300
    assert watched == [range(0, 1000, 10)]
