"""Matrix helpers of the Gaussian beliefs."""

from __future__ import annotations

import torch
from torch import Tensor

LEAF = 32  # rows up to which LAPACK inverts a matrix: beyond, products of halves are quicker on a CPU


def inverted(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse of positive-definite matrices (m, n, n), and the sum of their log determinants, a scalar.

    By halves through the Schur complement on a CPU, where most of the work is then matrix products. NaN for
    a matrix that rounding has left without a Cholesky factor: nothing is checked, nothing waits for a device.
    """
    rows = matrix.shape[-1]
    if rows == 1:
        return matrix.reciprocal(), matrix.log().sum()
    if rows <= LEAF or len(matrix) == 1 or matrix.is_cuda:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        factor.diagonal(dim1=-2, dim2=-1).masked_fill_(failed[:, None] > 0, torch.nan)
        return _from_factor(factor), 2 * log_diagonal(factor)
    half = (rows // 2 + 7) // 8 * 8
    first, above = inverted(matrix[:, :half, :half])
    tie = matrix[:, half:, :half] @ first
    last, below = inverted(torch.baddbmm(matrix[:, half:, half:], tie, matrix[:, :half, half:], alpha=-1))
    cross = last @ tie
    inverse = torch.empty_like(matrix)
    inverse[:, :half, :half] = torch.baddbmm(first, tie.mT, cross)
    inverse[:, half:, :half] = cross.neg_()
    inverse[:, :half, half:] = cross.mT
    inverse[:, half:, half:] = last
    return inverse, above + below


def _from_factor(factor: Tensor) -> Tensor:
    """(L Lᵀ)⁻¹; torch.cholesky_inverse is quicker on a CPU, and on CUDA waits for the device."""
    if not factor.is_cuda:
        return torch.cholesky_inverse(factor)
    eye = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False)
    return root.mT @ root


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
