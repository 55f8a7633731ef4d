from __future__ import annotations

import time
from dataclasses import FrozenInstanceError

import pytest
import torch

from bayes_clip import rates
from bayes_clip.rates import Rates, measure


def test_seconds_are_those_of_the_slower_of_the_two() -> None:
    known = Rates(gemm_flops_per_second=1e9, copy_bytes_per_second=1e8)
    assert known.seconds(2e9, 1e8) == 2.0
    assert known.seconds(1e9, 3e8) == 3.0
    assert known.seconds(0, 0) == 0.0
    with pytest.raises(FrozenInstanceError):
        known.gemm_flops_per_second = 2e9  # type: ignore[misc]


def test_the_rate_is_that_of_the_product_it_is_named_after() -> None:
    measured = measure()
    left, right = torch.rand(2048, 2048), torch.rand(2048, 2048)
    torch.mm(left, right)
    start = time.perf_counter()
    torch.mm(left, right)
    directly = 2 * 2048**3 / (time.perf_counter() - start)
    assert directly / 4 < measured.gemm_flops_per_second < 4 * directly  # the machine may be shared
    assert measured.copy_bytes_per_second > 1e8


def test_measuring_leaves_threads_alone_and_takes_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    clock = rates._clock

    def watched(work: object, device: torch.device) -> float:
        seen.append(torch.get_num_threads())
        return clock(work, device)  # type: ignore[arg-type]

    monkeypatch.setattr(rates, "_clock", watched)
    threads = torch.get_num_threads()
    start = time.perf_counter()
    measure(dtype=torch.float64)
    assert time.perf_counter() - start < 10
    assert set(seen) == {threads} and torch.get_num_threads() == threads


@pytest.mark.parametrize("length, runs", [(1.0, 1), (0.3, 3), (0.06, 4)])
def test_long_work_is_timed_once_short_work_often(
    monkeypatch: pytest.MonkeyPatch, length: float, runs: int
) -> None:
    calls = []

    def clock(work: object, device: torch.device) -> float:
        calls.append(work)
        return length

    monkeypatch.setattr(rates, "_clock", clock)
    assert rates._median_seconds(lambda: None, torch.device("cpu")) == length
    assert len(calls) == runs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured_by_its_own_clock() -> None:
    measured = measure("cuda")
    assert measured.gemm_flops_per_second > 1e12
    assert measured.copy_bytes_per_second > 1e11
