from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import assert_near
from torch import Tensor

from bayes_clip.gaussian.noise import STARTS, antithetic, keys_of

ROWS = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LIKE = torch.zeros(1, dtype=torch.float64)


def noise(keys: Tensor, width: int, draws: int, at_once: int = 1) -> Tensor:
    return torch.cat([block.clone() for block in antithetic(keys, width, draws, at_once, LIKE)])


def test_a_row_has_one_key_and_rows_have_many() -> None:
    keys = keys_of(ROWS)
    assert int(keys.min()) >= 0 and int(keys.max()) < STARTS
    counts = keys.bincount(minlength=STARTS)
    assert int(counts.max()) < 12, "2000 keys in 1024 places"
    assert int((counts > 0).sum()) > 800
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(keys_of(ROWS[order]), keys[order])


@pytest.mark.parametrize("scale", [1e-6, 1 / 3, 100.0])
def test_rounding_and_length_do_not_move_a_row(scale: float) -> None:
    assert torch.equal(keys_of(scale * ROWS), keys_of(ROWS))
    assert float((keys_of((scale * ROWS).float()) != keys_of(ROWS)).double().mean()) < 2e-3
    axes = torch.eye(16)
    lengths = 1 + 1e-6 * torch.rand(16, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keys_of(scale * lengths * axes), keys_of(axes))


@settings(deadline=None, max_examples=30)
@given(draws=st.integers(1, 9), at_once=st.integers(1, 12))
def test_draws_are_the_same_in_blocks_of_any_size(draws: int, at_once: int) -> None:
    keys = torch.tensor([5, 0, STARTS - 1])
    wanted = noise(keys, 4, draws)
    found = noise(keys, 4, draws, at_once)
    assert len(found) == draws
    assert_near(found.sort(dim=0).values, wanted.sort(dim=0).values)
    assert_near(found[:, :1], noise(keys[:1], 4, draws, at_once))


def test_draws_come_in_pairs_of_opposite_sign() -> None:
    drawn = noise(torch.tensor([3, 8]), 5, 6)
    assert_near(drawn[1::2], -drawn[::2])
    assert float(noise(torch.tensor([3]), 5, 5).sum(0).abs().max()) > 0, "an odd one stays alone"


def test_noise_is_standard_normal_and_unrelated_between_classes_draws_and_rows() -> None:
    apart = 10 * torch.arange(30)  # windows of neighbouring keys overlap, in different classes
    drawn = noise(apart, 6, 4000)[::2]  # one of each pair
    assert float(drawn.mean(0).abs().max()) < 0.12
    assert float((drawn.var(0) - 1).abs().max()) < 0.15
    flat = torch.corrcoef(drawn.flatten(1).mT) - torch.eye(180).double()
    assert float(flat.abs().max()) < 0.15
    over_rows = noise(torch.arange(STARTS), 3, 20)[::2]
    assert float(over_rows.mean(1).abs().max()) < 0.12, "errors average out over rows"
