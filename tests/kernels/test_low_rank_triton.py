"""The passes over a low-rank factor: torch against the formulas written out, Triton against torch."""

from __future__ import annotations

from dataclasses import astuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.kernels import low_rank


def problem(
    classes: int, features: int, rank: int, count: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, ...]:
    """W, υ and Φ of a head in `dtype`; T, Z and y in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    belief = normal(classes, features, rank), normal(classes, features).exp(), normal(count, features)
    return (
        *(part.to(dtype) for part in belief),
        normal(rank, rank),
        normal(count, classes, rank),
        normal(rank),
    )


def all_passes(module: object, parts: tuple[Tensor, ...], device: str = "cpu") -> list[Tensor]:
    factor, diagonal, design, turn, sites, direction = (part.to(device) for part in parts)
    flat = factor.reshape(-1, factor.shape[-1]), diagonal.reshape(-1)
    turned = module.turned(factor, design, turn, sites, direction)
    found = *module.squares(*flat), *module.seen(factor, diagonal, design), *astuple(turned)
    return [part.cpu() for part in found]


def differences(module: object, parts: tuple[Tensor, ...], device: str = "cpu") -> list[float]:
    """Of everything from the twin's, relative to the twin's largest."""
    pairs = zip(all_passes(module, parts, device), all_passes(low_rank, parts), strict=True)
    return [float((one - other).abs().max() / other.abs().max()) for one, other in pairs]


@pytest.mark.parametrize("kind", ["head", "jacobian"])
def test_torch_is_the_formulas_written_out(kind):
    factor, diagonal, design, turn, sites, direction = problem(3, 5, 4, 6, torch.float64)
    rows = torch.einsum("ck,nd->nckd", torch.eye(3, dtype=torch.float64), design).reshape(6, 3, 15)
    flat, scale = factor.reshape(15, 4), diagonal.reshape(15)
    if kind == "jacobian":
        factor, diagonal, design = flat, scale, rows
    plain, scaled = low_rank.squares(factor, diagonal)
    torch.testing.assert_close(plain, flat.T @ flat)
    torch.testing.assert_close(scaled, flat.T @ torch.diag(1 / scale) @ flat)
    plain, scaled = low_rank.seen(factor, diagonal, design)
    torch.testing.assert_close(plain, rows @ flat)
    torch.testing.assert_close(scaled, rows @ torch.diag(1 / scale) @ flat)
    after = low_rank.turned(factor, design, turn, sites, direction)
    new = flat @ turn + rows.reshape(18, 15).T @ sites.reshape(18, 4)
    torch.testing.assert_close(after.factor.reshape(15, 4), new)
    torch.testing.assert_close(after.released.reshape(15), (flat @ flat.T - new @ new.T).diagonal())
    torch.testing.assert_close(after.along.reshape(15), flat @ direction)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.integers(1, 3),
    features=st.integers(1, 40),
    rank=st.integers(1, 20),
    count=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_kernels_are_their_twins(interpreted, classes, features, rank, count, seed):
    parts = problem(classes, features, rank, count, torch.float64, seed)
    assert max(differences(interpreted("low_rank_triton"), parts)) < 1e-12


def test_sums_over_spans_and_in_float64(interpreted, monkeypatch):
    """Also of a float32 factor: only the new factor itself is rounded."""
    kernels = interpreted("low_rank_triton")
    monkeypatch.setattr(kernels, "SPAN", 32)
    found = differences(kernels, problem(2, 40, 5, 17, torch.float32))
    assert max(found[:4] + found[5:]) < 1e-12
    assert found[4] < 1e-7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("sizes", [(3, 70, 20, 18), (47, 512, 64, 21), (5, 100, 1, 1)])
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 1e-7)])
def test_compiled_kernels_are_their_twins(sizes, dtype, bound):
    from bayes_clip.kernels import low_rank_triton

    assert max(differences(low_rank_triton, problem(*sizes, dtype), "cuda")) < bound
