"""One thread for many small matrix operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run what is inside on one CPU thread.

    LAPACK on batches of matrices of 10 to 128 rows meets a barrier for every one of them: nothing is gained
    from more threads, and where another process wants the cores each barrier waits for the scheduler
    (measured: 20 to 40 times slower).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
