"""Pictures made ready by threads while the encoder is at work: in order, few at a time, none left behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

IN_FLIGHT = 4  # pictures per worker, so that none waits for the thread that feeds the encoder
NAME = "bayes-clip-pictures"


def workers_for(device: str) -> int:
    """Threads that make pictures ready: one per core, and on a CPU no fewer than torch may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores, torch.get_num_threads()) if torch.device(device).type == "cpu" else cores


@contextmanager
def ahead(
    prepare: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Iterator[Result]]:
    """`prepare(item)` for every item, in order, made by `workers` threads a few items ahead.

    Pillow and torch let go of the interpreter while they decode, resize and convert. What an item raises is
    raised when its turn comes, and the items after it are dropped. Items are taken one by one, by the thread
    that takes the results; at most four per worker are in hand. At the end, and after any exception, no
    thread goes on. With one worker there is no thread: each item is prepared as it is asked for.
    """
    if workers == 1:
        yield map(prepare, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix=NAME)
    try:
        yield _in_order(pool, prepare, items, IN_FLIGHT * workers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, prepare: Callable[[Item], Result], items: Iterable[Item], most: int
) -> Iterator[Result]:
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(prepare, item))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
