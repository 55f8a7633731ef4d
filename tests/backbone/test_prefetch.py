from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from bayes_clip.backbone.prefetch import IN_FLIGHT, NAME, ahead, workers_for


def threads_at_work() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_order_whatever_each_takes(workers: int) -> None:
    def late_if_early(item: int) -> int:
        time.sleep(0.002 * (5 - item % 5))
        return item**2

    with ahead(late_if_early, range(23), workers) as results:
        assert list(results) == [item**2 for item in range(23)]
    assert threads_at_work() == []


def test_nothing_comes_of_nothing() -> None:
    with ahead(str, [], 2) as results:
        assert list(results) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_few_items_are_in_hand_at_a_time(workers: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    with ahead(str, items(), workers) as results:
        for done, _ in zip(range(1, 21), results, strict=False):
            assert len(taken) <= done + IN_FLIGHT * workers
    assert len(taken) < 100


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_item_raises_is_raised_in_its_turn_and_the_rest_is_dropped(workers: int) -> None:
    begun = []

    def broken_at_five(item: int) -> int:
        begun.append(item)
        if item == 5:
            raise ValueError("five")
        return item

    seen: list[int] = []
    with pytest.raises(ValueError, match="five"), ahead(broken_at_five, range(1000), workers) as results:
        for result in results:
            seen.append(result)
    assert seen == [0, 1, 2, 3, 4]
    assert len(begun) <= 6 + IN_FLIGHT * workers and threads_at_work() == []


def test_an_interrupted_reader_leaves_no_thread_behind() -> None:
    with pytest.raises(KeyboardInterrupt), ahead(lambda item: time.sleep(0.01), range(1000), 2) as results:
        for _ in results:
            assert threads_at_work()
            raise KeyboardInterrupt
    assert threads_at_work() == []


def test_a_cpu_has_as_many_workers_as_torch_has_threads() -> None:
    assert workers_for("cpu") >= torch.get_num_threads()
    assert workers_for("cuda:0") >= 1
