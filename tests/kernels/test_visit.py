"""The visit of a covariance: both halves, each alone, in any number of parts."""

from __future__ import annotations

import pytest
import torch

from bayes_clip.kernels import visit as module
from bayes_clip.kernels.visit import visit

CLASSES, FEATURES = 5, 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("blocks_at_once", [1, 2, 5, 9])
@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("looks_ahead", [True, False])
def test_is_a_downdate_and_then_a_product(
    monkeypatch: pytest.MonkeyPatch, blocks_at_once: int, learns: bool, looks_ahead: bool
) -> None:
    monkeypatch.setattr(module, "CACHE_BYTES", blocks_at_once * FEATURES**2 * 8)
    before, left, right = random(CLASSES, 4, 4), random(CLASSES, 4, 3, seed=1), random(CLASSES, 4, 3, seed=2)
    design, covariance = random(2, FEATURES, seed=3), before.clone()
    factors = (left, right) if learns else (None, None)
    cross = visit(covariance, *factors, design if looks_ahead else None)
    after = before - left @ right.mT if learns else before
    assert torch.allclose(covariance, after, rtol=0, atol=1e-13)
    assert (cross is not None) == looks_ahead
    if cross is not None:
        assert torch.allclose(cross, after @ design.mT, rtol=0, atol=1e-13)
