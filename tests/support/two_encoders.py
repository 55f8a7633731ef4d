"""Two small encoders of the same pictures, one of them a rotation of the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit_rows(rows: int, width: int, seed: int = 0) -> Tensor:
    """Random rows of length one."""
    return normalize(random(rows, width, seed=seed), dim=-1)


def isometry(large: int, small: int, seed: int = 7) -> Tensor:
    """Orthonormal columns (large, small)."""
    return torch.linalg.qr(random(large, small, seed=seed))[0]
