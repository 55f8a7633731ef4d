"""Updates of independent weights: products of pairs of rows against the plain formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.kernels import diagonal


def problem(classes: int, features: int, count: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Mean, variance, design, dual, and a downdate that leaves the variances positive."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mean, variance, design = (
        normal(classes, features),
        normal(classes, features).exp(),
        normal(count, features),
    )
    root = normal(classes, count, count)
    precision = root @ root.mT / count
    gram = design @ (variance[..., None] * design.mT)
    downdate = torch.linalg.solve(torch.eye(count) + precision @ gram, precision)
    return mean, variance, design, normal(count, classes), (downdate + downdate.mT) / 2


def naive(
    mean: Tensor, variance: Tensor, design: Tensor, dual: Tensor, downdate: Tensor
) -> tuple[Tensor, Tensor]:
    moved = [m + v * (design.T @ a) for m, v, a in zip(mean, variance, dual.T, strict=True)]
    full = [
        torch.diag(v) - torch.diag(v) @ design.T @ b @ design @ torch.diag(v)
        for v, b in zip(variance, downdate, strict=True)
    ]
    return torch.stack(moved), torch.stack([covariance.diagonal() for covariance in full])


@settings(max_examples=25, deadline=None)
@given(
    classes=st.integers(1, 4), features=st.integers(1, 9), count=st.integers(1, 40), seed=st.integers(0, 99)
)
def test_both_are_the_plain_formulas(classes, features, count, seed):
    parts = problem(classes, features, count, seed)
    mean, variance = diagonal.condition(*parts)
    expected = naive(*parts)
    torch.testing.assert_close(mean, expected[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(variance, expected[1], rtol=0, atol=1e-9)
    gram = parts[2] @ (parts[1][..., None] * parts[2].mT)
    torch.testing.assert_close(diagonal.gram_blocks(parts[1], parts[2]), gram, rtol=1e-12, atol=1e-12)


def test_classes_one_at_a_time(monkeypatch):
    monkeypatch.setattr(diagonal, "CACHED", 1)
    parts = problem(3, 5, 18)
    torch.testing.assert_close(diagonal.condition(*parts)[1], naive(*parts)[1], rtol=0, atol=1e-9)


def test_no_variance_below_zero_and_no_argument_changed():
    parts = problem(2, 5, 7)
    before = [part.clone() for part in parts]
    _, variance = diagonal.condition(*parts[:4], 1e3 * parts[4])
    assert variance.min() == 0
    assert all(torch.equal(one, other) for one, other in zip(parts, before, strict=True))


def test_no_rows_change_nothing():
    mean, variance, design, dual, downdate = problem(2, 4, 1)
    after = diagonal.condition(mean, variance, design[:0], dual[:0], downdate[:, :0, :0])
    assert torch.equal(after[0], mean)
    assert torch.equal(after[1], variance)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_float32_keeps_its_precision(count):
    """Also where the rows leave no direction open, and nearly all of the variance cancels."""
    parts = problem(3, 11, count)
    found, expected = diagonal.condition(*(part.float() for part in parts)), naive(*parts)
    assert float((found[1] - expected[1]).abs().max()) < 1e-5 * float(parts[1].max())
