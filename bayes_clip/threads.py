"""One thread for many small matrix operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_WORK = 2**23  # multiply-adds of one matrix product, below which threads cost more than they give


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
    try:
        yield
    finally:
        torch.set_num_threads(threads)
