"""Dense forms of the beliefs that are kept in precision form, in float64."""

from __future__ import annotations

from typing import TypeVar

import torch
from naive_twins import jacobian
from torch import Tensor

from bayes_clip.gaussian.belief import Belief
from bayes_clip.gaussian.kronecker import Kronecker
from bayes_clip.gaussian.low_rank import LowRankPrecision
from bayes_clip.gaussian.variational_diagonal import VariationalDiagonal
from bayes_clip.observation import SOFTMAX

PrecisionBelief = Kronecker | LowRankPrecision | VariationalDiagonal
Family = TypeVar("Family", bound=Belief)


def dense_precision(belief: PrecisionBelief) -> Tensor:
    """Precision of the flat weights, classes outermost, (P, P), from the family's own numbers."""
    if isinstance(belief, VariationalDiagonal):
        return torch.diag(belief.precision.reshape(-1))
    if isinstance(belief, LowRankPrecision):
        flat = belief.factor.reshape(belief.mean.numel(), -1)
        return torch.diag(belief.diagonal.reshape(-1)) + flat @ flat.mT
    prior = torch.kron(torch.diag(1 / belief.class_variance), torch.diag(1 / belief.feature_variance))
    return prior + torch.kron(belief.curvature, belief.moment) / max(float(belief.rows), 1e-300)


def plain_step(belief: Family, design: Tensor, labels: Tensor) -> Family:
    """The extended Kalman update through the belief's own projection, its small systems in float64."""
    projection = belief.project(design)
    logits, gram = projection.logits.double(), projection.gram.double()
    curvature = SOFTMAX.curvature(logits)
    residual = SOFTMAX.target(labels, logits) - SOFTMAX.response(logits)
    dual = gram.newton(curvature, torch.zeros_like(residual), residual)
    return belief.condition(projection, dual.to(design), gram.downdate(curvature).to(design))


def rows_of(design: Tensor, classes: int) -> Tensor:
    """The Jacobian (b, C, P) that a design stands for: itself, or that of a shared design (b, D)."""
    return design if design.ndim == 3 else jacobian(design, classes)


def precision_update(
    mean: Tensor, precision: Tensor, rows: Tensor, curvature: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """Λ⁺ = Λ + Hᵀ R H, m⁺ = m + Λ⁺⁻¹ Hᵀ r: mean (P,), Jacobian (b, C, P), R (b, C, C), r (b, C)."""
    posterior = precision.clone()
    pulled = torch.zeros_like(mean)
    for row, one, own in zip(rows, curvature, residual, strict=True):
        posterior += row.mT @ one @ row
        pulled += row.mT @ own
    return mean + torch.linalg.solve(posterior, pulled), posterior


def truncated(diagonal: Tensor, factor: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """LO-FI by the book: SVD of the whole (P, k) factor, `rank` kept, the rest's diagonal folded in."""
    left, values, _ = torch.linalg.svd(factor, full_matrices=False)
    scaled = left * values
    return diagonal + scaled[:, rank:].square().sum(1), scaled[:, :rank]
