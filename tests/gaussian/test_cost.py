from __future__ import annotations

import pytest
import torch

from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES, bytes_needed, check_fits, cost


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_bytes_are_those_of_the_belief(family: str) -> None:
    belief = FAMILIES[family].from_prior(torch.zeros(3, 5), torch.ones(3, 5))
    numbers = belief.variance if family == "diagonal" else belief.covariance
    assert bytes_needed(family, 3, 5, torch.float32) == numbers.nbytes


def test_a_full_covariance_too_large_is_refused_with_its_size() -> None:
    with pytest.raises(
        UserError, match=r"--covariance full needs about \d+\.\d GiB .*class_block"
    ) as refusal:
        check_fits("full", 1000, 1024, torch.float32, "cpu")
    assert "\n" not in str(refusal.value)
    wanted = 3 * 4 * (1000 * 1024) ** 2 / 1024**3
    assert f"{wanted:.1f} GiB for 1000 classes and 1024 features" in str(refusal.value)


def test_what_fits_is_let_through_and_the_limit_is_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 3 * 8 * 4 * 10**2
    monkeypatch.setattr(cost, "free_memory", lambda device: needed)
    check_fits("class_block", 4, 10, torch.float64, "cpu")
    monkeypatch.setattr(cost, "free_memory", lambda device: needed - 1)
    with pytest.raises(UserError, match="use --covariance diagonal"):
        check_fits("class_block", 4, 10, torch.float64, "cpu")


def test_unknown_covariance_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="Did you mean 'diagonal'"):
        bytes_needed("diagnal", 2, 2, torch.float32)
