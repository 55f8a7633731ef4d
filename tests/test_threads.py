from __future__ import annotations

from threading import Barrier, get_ident

import pytest
import torch

from bayes_clip import threads
from bayes_clip.threads import one_thread, shared_out


@pytest.fixture
def two_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_small_work_runs_on_one_thread_and_the_number_comes_back() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_the_number_comes_back_after_an_error() -> None:
    with pytest.raises(ValueError), one_thread():
        raise ValueError
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_large_work_keeps_all_threads() -> None:
    with one_thread(threads.SMALL_WORK + 1):
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_work_is_shared_with_the_threads_held_back_in_the_order_of_the_items() -> None:
    together = Barrier(2, timeout=10)

    def meet(item: int) -> tuple[int, int, int]:
        if item < 2:
            together.wait()  # only two threads at once get past
        return item, get_ident(), torch.get_num_threads()

    with one_thread(), one_thread():
        found = shared_out(meet, range(5))
    assert [item for item, _, _ in found] == list(range(5))
    assert len({thread for _, thread, _ in found}) == 2
    assert {threads for _, _, threads in found} == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_without_threads_held_back_work_stays_where_it_is() -> None:
    assert set(shared_out(lambda _: get_ident(), range(5))) == {get_ident()}


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_shared_work_is_the_callers() -> None:
    def fail(item: int) -> None:
        raise ValueError(item)

    with pytest.raises(ValueError), one_thread():
        shared_out(fail, range(4))
