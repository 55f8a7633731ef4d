from __future__ import annotations

import pytest
import torch

from bayes_clip import threads
from bayes_clip.threads import one_thread


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
