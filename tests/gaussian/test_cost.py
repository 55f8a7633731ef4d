from __future__ import annotations

import pytest
import torch

from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES, bytes_needed, check_fits, cost
from bayes_clip.gaussian.cost import allocation_note, largest_batch
from bayes_clip.gaussian.gram import DenseGram


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_bytes_are_those_of_the_belief(family: str) -> None:
    belief = FAMILIES[family].from_prior(torch.zeros(3, 5), torch.ones(3, 5))
    held = sum(tensor.nbytes for name, tensor in vars(belief).items() if name != "mean")
    assert bytes_needed(family, 3, 5, torch.float32) == held


def test_a_large_allocation_is_announced_in_one_line_and_a_small_one_is_not() -> None:
    assert allocation_note("class_block", 47, 512, torch.float32) == ""
    note = allocation_note("full", 47, 512, torch.float32)
    size = 4 * (47 * 512) ** 2 / 2**30
    assert f"takes {size:.1f} GiB for 47 classes and 512 features" in note
    assert f"{3 * size:.1f} GiB while it is updated" in note and "O(C² D²) memory" in note
    assert "\n" not in note


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_batches_are_bounded_where_the_family_sees_all_logits_jointly(family: str) -> None:
    joint = isinstance(
        FAMILIES[family].from_prior(torch.zeros(3, 5), torch.ones(3, 5)).project(torch.ones(2, 5)).gram,
        DenseGram,
    )
    assert largest_batch(family, 10) == (102 if joint else None)
    assert largest_batch(family, 5000) == (1 if joint else None)


def test_a_full_covariance_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(
        UserError, match=r"--covariance full needs about \d+\.\d GiB .*class_block"
    ) as refusal:
        check_fits("full", 1000, 1024, torch.float32, "cpu")
    assert "\n" not in str(refusal.value)
    wanted = 3 * 4 * (1000 * 1024) ** 2 / 1024**3
    assert f"{wanted:.1f} GiB for 1000 classes and 1024 features" in str(refusal.value)


def test_what_fits_is_let_through_and_the_limit_is_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 2 * 8 * 4 * 10**2
    monkeypatch.setattr(cost, "free_memory", lambda device: needed)
    check_fits("class_block", 4, 10, torch.float64, "cpu")
    monkeypatch.setattr(cost, "free_memory", lambda device: needed - 1)
    with pytest.raises(UserError, match="use --covariance diagonal"):
        check_fits("class_block", 4, 10, torch.float64, "cpu")


def test_unknown_covariance_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="Did you mean 'diagonal'"):
        bytes_needed("diagnal", 2, 2, torch.float32)
