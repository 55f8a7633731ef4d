"""The recursion on Gram matrices as Triton kernels, against its twin and the naive sequential filter."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.inference import kalman
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import iterated, plain
from bayes_clip.kernels.recursion import recursion


def problem(classes: int, count: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gram blocks (C, b, b) of variance about `scale`, logits that spread by 5, and labels."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(classes, count, count + 3, generator=generator, dtype=torch.float64)
    logits = 5 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    return scale * root @ root.mT / (count + 3), logits, labels


def largest_difference(
    kernel: object, parts: tuple[Tensor, ...], linearised: bool, dtype: torch.dtype, device: str = "cpu"
) -> float:
    """Of anything that the kernel returns from what its twin returns in float64, relative to the latter."""
    gram, logits, labels = parts
    found = kernel(gram.to(device, dtype), logits.to(device, dtype), labels.to(device), linearised)
    twin = recursion(gram, logits, labels, linearised)
    pairs = [(getattr(found, part.name).cpu(), getattr(twin, part.name)) for part in fields(twin)]
    return max(float((one - other).abs().max() / other.abs().max().clamp_min(1e-30)) for one, other in pairs)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    classes=st.integers(2, 9),
    count=st.integers(1, 19),
    scale=st.sampled_from([1e-9, 1e-2, 1.0, 30.0, 1000.0]),
    linearised=st.booleans(),
    seed=st.integers(0, 99),
)
def test_kernel_is_its_twin(interpreted, classes, count, scale, linearised, seed):
    kernel = interpreted("recursion_triton").recursion
    parts = problem(classes, count, scale, seed)
    assert largest_difference(kernel, parts, linearised, torch.float64) < 1e-9


@pytest.mark.parametrize("linearised", [False, True])
def test_float32_keeps_its_precision(interpreted, linearised):
    kernel = interpreted("recursion_triton").recursion
    assert largest_difference(kernel, problem(5, 11, 20.0), linearised, torch.float32) < 1e-5


@pytest.mark.parametrize("rule, linearised", [(plain, False), (iterated, True)])
def test_a_block_is_the_filter_one_row_at_a_time(interpreted, rule, linearised):
    generator = torch.Generator().manual_seed(3)
    classes, features, count = 4, 6, 11
    mean = torch.randn(classes, features, generator=generator, dtype=torch.float64)
    design = 2 * torch.randn(count, features, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    state = kalman.init(mean, torch.full_like(mean, 0.8), "class_block")
    projection = state.belief.project(design)
    kernel = interpreted("recursion_triton").recursion
    block = kernel(projection.gram.blocks, projection.logits, labels, linearised)
    together = state.belief.condition(projection, *block.combined())
    for i in range(count):
        predicted = state.belief.project(design[i : i + 1])
        torch.testing.assert_close(block.predicted[i], predicted.logits[0], rtol=0, atol=1e-9)
        variance = predicted.gram.blocks[:, 0, 0]
        torch.testing.assert_close(block.variance[i], variance, rtol=0, atol=1e-9)
        state, _ = kalman.update(state, Batch(design[i : i + 1], labels[i : i + 1]), rule)
    torch.testing.assert_close(together.mean, state.belief.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(together.covariance, state.belief.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 60.0])
def test_mode_of_one_label_has_no_gradient(interpreted, dtype, bound, spread):
    """a = y − softmax(z + g a), from variances of zero to a million in one row."""
    kernel = interpreted("recursion_triton").recursion
    variance = torch.tensor([0.0, 1e-30, 1e-6, 1.0, 37.0, 1e3, 1e6], dtype=dtype)
    mean = spread * torch.linspace(-1, 1, 7, dtype=dtype)
    for label in (0, 3, 6):
        dual = kernel(variance[:, None, None], mean[None], torch.tensor([label]), True).dual[0]
        # rounding of a logit of 1e6 moves the probability that is recomputed here, so ask it of a itself
        logits = (mean + variance * dual).double()
        target = torch.eye(7, dtype=torch.float64)[label]
        residual = (target - logits.softmax(-1) - dual) / (1 + variance.double())
        assert float(residual.abs().max()) < bound * max(1, spread)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype, bound", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("sizes", [(6, 19), (100, 64), (1100, 30), (5, 128)])
@pytest.mark.parametrize("linearised", [False, True])
def test_compiled_kernel_is_its_twin(dtype, bound, sizes, linearised):
    from bayes_clip.kernels.recursion_triton import recursion as compiled

    assert largest_difference(compiled, problem(*sizes, 20.0), linearised, dtype, "cuda") < bound


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_block_waits_for_nothing_and_goes_into_a_cuda_graph():
    from bayes_clip.kernels.recursion_triton import recursion as compiled

    parts = problem(47, 64, 20.0)
    moved = [part.cuda() for part in parts]
    first = compiled(*moved, True)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        second = compiled(*moved, True)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        third = compiled(*moved, True)
    graph.replay()
    torch.cuda.synchronize()
    for part in fields(first):
        one, two, three = (getattr(found, part.name) for found in (first, second, third))
        assert torch.equal(one, two)
        assert torch.equal(one, three)
