"""The diagonal update as a Triton kernel: in the interpreter everywhere, compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.kernels.diagonal import condition


def problem(classes: int, features: int, count: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = normal(classes, count, count)
    parts = (
        normal(classes, features),
        0.1 * normal(classes, features).exp(),
        normal(count, features),
        normal(count, classes),
        root @ root.mT / count**2,
    )
    return tuple(part.to(dtype) for part in parts)


def differences(kernel: object, parts: tuple[Tensor, ...], device: str = "cpu") -> float:
    """Largest difference of mean and variance from the twin's in float64, relative to the twin's largest."""
    found = kernel(*(part.to(device) for part in parts))
    twin = condition(*(part.double() for part in parts))
    pairs = zip(found, twin, strict=True)
    return max(float((one.cpu() - other).abs().max() / other.abs().max()) for one, other in pairs)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.integers(1, 3),
    features=st.integers(1, 70),
    count=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_kernel_is_its_twin(interpreted, classes, features, count, seed):
    parts = problem(classes, features, count, torch.float64, seed)
    assert differences(interpreted("diagonal_triton").condition, parts) < 1e-12


def test_float32_keeps_its_precision(interpreted):
    parts = problem(3, 70, 37, torch.float32)
    assert differences(interpreted("diagonal_triton").condition, parts) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(3, 70, 37), (47, 512, 64), (5, 100, 1)])
def test_compiled_kernel_is_its_twin(dtype, bound, sizes):
    from bayes_clip.kernels.diagonal_triton import condition as compiled

    assert differences(compiled, problem(*sizes, dtype), "cuda") < bound
