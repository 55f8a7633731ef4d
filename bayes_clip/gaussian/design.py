"""What a batch multiplies the weights with: one design for all classes, or a Jacobian.

A linear head has rows Φ (b, D) and weights W (C, D): its logits are Φ Wᵀ. Any other program is linearised:
its logits are J w with a Jacobian J (b, C, P) and flat weights (P,). Beliefs that do not need the structure
of a head are written once over these functions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def times(design: Tensor, weights: Tensor) -> Tensor:
    """H w: logits (b, C, ...) from weights (C, D, ...) or (P, ...)."""
    if design.ndim == 2:
        return torch.einsum("bd,cd...->bc...", design, weights)
    return torch.einsum("bcp,p...->bc...", design, weights)


def pull_back(design: Tensor, dual: Tensor) -> Tensor:
    """Hᵀ a: weights (C, D, ...) or (P, ...) from a dual (b, C, ...)."""
    if design.ndim == 2:
        return torch.einsum("bd,bc...->cd...", design, dual)
    return torch.einsum("bcp,bc...->p...", design, dual)


def classes_outermost(columns: Tensor) -> Tensor:
    """(b, C, k) as (C b, k): the order in which a dense Gram matrix lists the logits of a batch."""
    return columns.transpose(0, 1).reshape(-1, columns.shape[-1])


def row_times(design: Tensor, columns: Tensor) -> Tensor:
    """Each row's H_n applied to its own columns: (n, K, C) from (n, K, C, D) or (n, K, P)."""
    if design.ndim == 2:
        return torch.einsum("nd,nkcd->nkc", design, columns)
    return torch.einsum("ncp,nkp->nkc", design, columns)
