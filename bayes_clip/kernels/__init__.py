"""The hot updates of the filter, picked by device: torch everywhere, Triton on CUDA."""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor


def compiled(tensor: Tensor) -> bool:
    """Whether a Triton kernel takes this tensor: it lives on a CUDA device and Triton is installed."""
    return tensor.is_cuda and find_spec("triton") is not None
