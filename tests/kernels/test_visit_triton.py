"""The fused visit as a Triton kernel: in the interpreter everywhere, compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.kernels.visit import visit


def problem(
    classes: int, features: int, removed: int, products: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    root = normal(classes, features, features) / features**0.5
    left = normal(classes, features, removed) if removed else None
    right = normal(classes, features, removed) if removed else None
    return root @ root.mT, left, right, normal(products, features) if products else None


def differences(kernel: object, parts: tuple, device: str = "cpu") -> list[float]:
    """Largest difference between the kernel and its twin, of P and of the product, relative to the twin's."""
    expected, covariance = parts[0].double().clone(), parts[0].clone().to(device)
    moved = [None if part is None else part.to(device) for part in parts[1:]]
    cross = kernel(covariance, *moved)
    twin = visit(expected, *(None if part is None else part.double() for part in parts[1:]))
    assert (cross is None) == (twin is None)
    pairs = [(covariance, expected)] + ([(cross, twin)] if cross is not None else [])
    return [float((one.cpu() - other).abs().max() / other.abs().max()) for one, other in pairs]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.integers(1, 3),
    features=st.integers(1, 80),
    removed=st.integers(0, 20),
    products=st.integers(0, 18),
    seed=st.integers(0, 99),
)
def test_kernel_is_its_twin(interpreted, classes, features, removed, products, seed):
    kernel = interpreted("visit_triton")
    parts = problem(classes, features, removed, products, torch.float64, seed)
    assert max(differences(kernel.visit, parts)) < 1e-12


def test_float32_keeps_its_precision(interpreted):
    parts = problem(2, 70, 33, 17, torch.float32)
    assert max(differences(interpreted("visit_triton").visit, parts)) < 1e-6


def test_wide_designs_take_the_downdate_once(interpreted, monkeypatch):
    kernel = interpreted("visit_triton")
    monkeypatch.setattr(kernel, "MOST_PRODUCTS", 16)
    assert max(differences(kernel.visit, problem(2, 10, 3, 37, torch.float64))) < 1e-12


def test_covariance_that_is_no_contiguous_array_is_refused(interpreted):
    covariance, left, right, design = problem(2, 5, 2, 3, torch.float64)
    with pytest.raises(ValueError, match="contiguous"):
        interpreted("visit_triton").visit(covariance.mT, left, right, design)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(3, 70, 20, 18), (2, 512, 64, 64), (2, 130, 100, 90), (2, 64, 0, 47)])
def test_compiled_kernel_is_its_twin(dtype, bound, sizes):
    from bayes_clip.kernels.visit_triton import visit as compiled

    assert max(differences(compiled, problem(*sizes, dtype), "cuda")) < bound
