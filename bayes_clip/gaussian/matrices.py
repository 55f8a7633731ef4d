"""Matrix helpers of the Gaussian beliefs."""

from __future__ import annotations

import torch
from torch import Tensor


def removed(gram: Tensor, site: Tensor) -> Tensor:
    """(I − S G)⁻¹ S, which is symmetric in exact arithmetic, from G and S, both (..., n, n)."""
    system = -(site @ gram)
    system.diagonal(dim1=-2, dim2=-1).add_(1)
    return torch.linalg.solve(system, site)


def root_of(covariances: Tensor) -> Tensor:
    """The symmetric L with L Lᵀ = each of the covariances (n, C, C), which may be singular.

    Symmetric, so that it moves as little as the covariance does: fixed draws through it stay comparable from
    one step of a fixed point to the next, where eigenvectors alone turn and change sign.
    """
    values, vectors = torch.linalg.eigh(covariances)
    return (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mT


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part of (..., n, n)."""
    return (matrix + matrix.mT) / 2


def log_diagonal(factor: Tensor) -> Tensor:
    """Sum of the logarithms of all diagonal entries of (..., n, n), a scalar."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum()
