from __future__ import annotations

import pytest
import torch

from bayes_clip.randomness import own_random_numbers

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
def test_the_block_starts_from_the_seed_and_leaves_the_caller_where_it_was(device: str) -> None:
    torch.manual_seed(5)
    wanted = [torch.randn(3, device=device) for _ in range(2)]
    torch.manual_seed(5)
    first = torch.randn(3, device=device)
    inside = []
    for _ in range(2):
        with own_random_numbers(first.device, seed=7):
            inside.append(torch.randn(3, device=device))
    assert torch.equal(first, wanted[0]) and torch.equal(torch.randn(3, device=device), wanted[1])
    assert torch.equal(*inside)


def test_without_a_seed_the_block_goes_on_from_where_the_caller_is() -> None:
    torch.manual_seed(5)
    with own_random_numbers(torch.device("cpu")):
        inside = torch.randn(3)
    assert torch.equal(inside, torch.randn(3))
