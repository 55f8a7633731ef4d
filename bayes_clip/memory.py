"""One budget of working memory, and the rows of a large array that fit into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from torch import Tensor

Parts = TypeVar("Parts", bound=tuple[Tensor, ...])

WORKING_BYTES = 2**27  # what a prediction may hold beside the posterior, its inputs and its outputs


def rows_within(budget: int, bytes_per_row: int) -> int:
    """Rows that are worked on at once; one where a single row is larger than the budget."""
    return max(1, budget // max(1, bytes_per_row))


def by_rows(
    function: Callable[[Tensor], Parts],
    rows: Tensor,
    at_once: int,
    watched: Callable[[range], Iterable[int]] = iter,
) -> Parts:
    """`function` of `rows` (N, ...), `at_once` at a time, its results (n, ...) written into tensors (N, ...).

    No list of parts is kept, so that the peak is the outputs and one chunk. `watched` may show the progress
    of the loop over the first rows of the chunks.
    """
    if len(rows) <= at_once:
        return function(rows)
    outputs: tuple[Tensor, ...] = ()
    for start in watched(range(0, len(rows), at_once)):
        parts = function(rows[start : start + at_once])
        outputs = outputs or tuple(part.new_empty(len(rows), *part.shape[1:]) for part in parts)
        for output, part in zip(outputs, parts, strict=True):
            output[start : start + len(part)] = part
    return cast(Parts, outputs)
