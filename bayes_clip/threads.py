"""One thread for many small matrix operations; others take whole pieces of work where there are many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import TypeVar

import torch

SMALL_WORK = 2**23  # multiply-adds of one matrix product, below which threads cost more than they give

Item = TypeVar("Item")
Result = TypeVar("Result")
_held_back = [0]  # threads that `one_thread` keeps from single operations, innermost last


@contextmanager
def one_thread(work: int = 0) -> Iterator[None]:
    """Run what is inside on one CPU thread, unless its matrix products are large (`work` multiply-adds).

    Small products, and LAPACK on batches of matrices of 10 to 128 rows, meet a barrier each: nothing is
    gained from more threads, and where another process wants the cores each barrier waits for the scheduler
    (seen: 20 to 40 times slower).
    """
    if work > SMALL_WORK:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    _held_back.append(max(_held_back[-1], threads - 1))
    try:
        yield
    finally:
        _held_back.pop()
        torch.set_num_threads(threads)


def shared_out(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """[function(item) for item in items], also on the threads that `one_thread` holds back.

    Whoever is free takes the next item, the caller too: a thread that gets no core is not waited for, and the
    results do not depend on who computed them.
    """
    helpers = min(_held_back[-1], len(items) - 1)
    if helpers < 1:
        return [function(item) for item in items]
    results: dict[int, Result] = {}
    turn = count()

    def work() -> None:
        while (index := next(turn)) < len(items):
            results[index] = function(items[index])

    helping = [_pool(_held_back[-1]).submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        waiting = [helper for helper in helping if not helper.cancel()]
    for helper in waiting:
        helper.result()
    return [results[index] for index in range(len(items))]


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Threads whose own operations each run on one."""
    return ThreadPoolExecutor(workers, "bayes_clip", initializer=torch.set_num_threads, initargs=(1,))
