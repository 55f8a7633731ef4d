"""Textbook forms of what the library does fast: dense, in float64, with the whole Jacobian written out."""

from __future__ import annotations

import torch
from scipy.optimize import minimize
from small_problems import SmallProblem
from torch import Tensor


def jacobian(design: Tensor, classes: int) -> Tensor:
    """∂ logits / ∂ flat weights (classes outermost), (N, C, C D)."""
    eye = torch.eye(classes, dtype=design.dtype)
    return torch.einsum("ck,nd->nckd", eye, design).reshape(len(design), classes, -1)


def softmax_curvature(probabilities: Tensor) -> Tensor:
    """diag(p) − p pᵀ row by row, (N, C, C)."""
    return torch.stack([torch.diag(p) - torch.outer(p, p) for p in probabilities])


def dense_update(
    mean: Tensor, covariance: Tensor, design: Tensor, curvature: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Information form: Λ⁺ = Λ + HᵀRH, m⁺ = m + P⁺Hᵀr.

    Flat mean (P,), covariance (P, P), curvature R (N, C, C) and residual r (N, C) as given.
    """
    rows = jacobian(design, residual.shape[1])
    precision = torch.linalg.inv(covariance) + torch.einsum("nci,ncd,ndj->ij", rows, curvature, rows)
    posterior = torch.linalg.inv(precision)
    return mean + posterior @ torch.einsum("nci,nc->i", rows, residual), posterior


def extended_kalman_update(
    mean: Tensor, covariance: Tensor, design: Tensor, labels: Tensor, offset: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """The textbook extended Kalman update of softmax labels: linearised once at the predicted mean (C, D)."""
    probabilities = (design @ mean.mT + offset).softmax(-1)
    residual = torch.eye(len(mean), dtype=mean.dtype)[labels] - probabilities
    return dense_update(mean.reshape(-1), covariance, design, softmax_curvature(probabilities), residual)


def diagonal_blocks(matrix: Tensor, classes: int) -> Tensor:
    """The (C, n, n) diagonal blocks of a (C n, C n) matrix with classes outermost."""
    size = len(matrix) // classes
    return torch.stack([matrix[c * size : (c + 1) * size, c * size : (c + 1) * size] for c in range(classes)])


def log_joint(problem: SmallProblem, weights: Tensor) -> Tensor:
    """log p(labels | weights) + log p(weights) up to a constant."""
    fit = (problem.design @ weights.mT).log_softmax(-1)[range(len(problem.labels)), problem.labels].sum()
    return fit - ((weights - problem.mean).square() / problem.variance).sum() / 2


def mode_and_covariance(problem: SmallProblem) -> tuple[Tensor, Tensor]:
    """The posterior mode (C, D) by L-BFGS and three dense Newton steps, and the inverse Hessian there."""

    def loss(flat: Tensor) -> Tensor:
        return -log_joint(problem, flat.reshape(problem.mean.shape))

    def value_and_gradient(flat: object) -> tuple[float, object]:
        weights = torch.tensor(flat, dtype=torch.float64, requires_grad=True)
        value = loss(weights)
        value.backward()
        return float(value.detach()), weights.grad.numpy()

    found = minimize(value_and_gradient, problem.mean.reshape(-1).numpy(), jac=True, method="L-BFGS-B")
    flat = torch.tensor(found.x)
    for _ in range(3):
        hessian = torch.func.hessian(loss)(flat)
        flat = flat - torch.linalg.solve(hessian, torch.func.grad(loss)(flat))
    covariance = torch.linalg.inv(torch.func.hessian(loss)(flat))
    return flat.reshape(problem.mean.shape), covariance
