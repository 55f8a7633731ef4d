"""A whole filter on the Triton kernels: as on a GPU, but interpreted."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from bayes_clip.inference import kalman
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import iterated
from bayes_clip.kernels import compiled, diagonal, low_rank, visit

WITH_KERNELS = {
    "class_block": (visit, "visit_triton"),
    "diagonal": (diagonal, "diagonal_triton"),
    "low_rank": (low_rank, "low_rank_triton"),
}


def filtered(family: str) -> kalman.KalmanState:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    state = kalman.init(mean, torch.full_like(mean, 0.5), family)
    for rows in (5, 4):
        design = 2 * torch.randn(rows, 7, generator=generator, dtype=torch.float64)
        labels = torch.randint(3, (rows,), generator=generator)
        state, _ = kalman.update(state, Batch(design, labels), iterated)
    return state


@pytest.mark.parametrize("family", WITH_KERNELS)
def test_filter_on_the_kernels_is_the_filter(interpreted, monkeypatch, family):
    wanted = filtered(family)
    module, name = WITH_KERNELS[family]
    taken = []
    monkeypatch.setitem(sys.modules, f"bayes_clip.kernels.{name}", interpreted(name))
    monkeypatch.setattr(module, "compiled", lambda tensor: taken.append(tensor.shape) or True)
    found = filtered(family)
    assert taken
    torch.testing.assert_close(found.belief.mean, wanted.belief.mean, rtol=0, atol=1e-9)
    design = torch.tril(torch.ones(7, 7, dtype=torch.float64))
    moments, expected = found.belief.logit_moments(design), wanted.belief.logit_moments(design)
    torch.testing.assert_close(moments, expected, rtol=0, atol=1e-9)


def test_a_cpu_tensor_goes_to_torch():
    assert not compiled(torch.zeros(1))


def test_the_library_needs_no_triton():
    """Neither to be imported nor to run on a CPU."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from bayes_clip.kernels import diagonal, low_rank, recursion, visit\n"
        "visit.visit(torch.eye(3)[None], None, None, torch.ones(1, 3))\n"
        "assert not any(name.endswith('_triton') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tensor_goes_to_triton():
    pytest.importorskip("triton")
    assert compiled(torch.zeros(1, device="cuda"))
