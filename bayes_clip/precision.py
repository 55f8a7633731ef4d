"""Full float32 precision in matrix products, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 or bfloat16 in float32 products while this lasts; the caller's setting comes back at the end.

    Ten bits of mantissa are enough to train a network and not to subtract two covariances.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
