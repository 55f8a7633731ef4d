"""What this machine does per second, measured: matrix products and copies.

A computation takes at least as long as its operations at the rate of large matrix products, and as its bytes
at the rate of a large copy, whichever is longer: the roofline (Williams, Waterman & Patterson 2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

GEMM_SIZE = 2048
COPY_BYTES = 2**26  # 64 MiB read and as many written
SEVERAL = 3
ENOUGH_SECONDS, MOST_SECONDS = 0.2, 0.7  # of one kind of work: the more runs the shorter they are


@dataclass(frozen=True)
class Rates:
    """Measured rates of one device in one dtype, and under one number of threads on a CPU."""

    gemm_flops_per_second: float  # of a (2048, 2048) product, 2 · 2048³ operations
    copy_bytes_per_second: float  # read and written bytes together

    def seconds(self, flops: float, bytes_moved: float) -> float:
        """The least time for so many operations and so many bytes read and written."""
        return max(flops / self.gemm_flops_per_second, bytes_moved / self.copy_bytes_per_second)


def measure(device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Rates:
    """Measure a device as it is now, with the threads that torch is set to: medians, in about a second.

    TF32 counts where the caller has allowed it; `precision.full_precision` forbids it.
    """
    device = torch.device(device)
    left, right = (torch.rand(GEMM_SIZE, GEMM_SIZE, device=device, dtype=dtype) for _ in range(2))
    product = torch.zeros_like(left)
    source = torch.zeros(COPY_BYTES // dtype.itemsize, device=device, dtype=dtype)
    target = torch.zeros_like(source)
    torch.mm(left[:128], right, out=product[:128])  # what is set up once, as threads and libraries are
    target.copy_(source)
    gemm = _median_seconds(lambda: torch.mm(left, right, out=product), device)
    copy = _median_seconds(lambda: target.copy_(source), device)
    return Rates(2 * GEMM_SIZE**3 / gemm, 2 * COPY_BYTES / copy)


def eigen_rate(device: str | torch.device = "cpu", size: int = 256) -> float:
    """9 n³ operations, nominally those of all eigenvectors of an (n, n) matrix in float64, per second."""
    device = torch.device(device)
    matrix = torch.rand(size, size, device=device, dtype=torch.float64)
    matrix = matrix @ matrix.mT
    torch.linalg.eigh(matrix)
    return 9 * size**3 / _median_seconds(lambda: torch.linalg.eigh(matrix), device)


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = _cuda_clock if device.type == "cuda" else _clock
    spent: list[float] = []
    while (len(spent) < SEVERAL and sum(spent) < MOST_SECONDS) or sum(spent) < ENOUGH_SECONDS:
        spent.append(clock(work, device))
    return median(spent)


def _clock(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _cuda_clock(work: Callable[[], object], device: torch.device) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
