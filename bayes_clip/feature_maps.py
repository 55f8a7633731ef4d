"""A linear map between the image features of two encoders, from unlabelled pictures that both have seen.

Write x₁ (D₁) and x₂ (D₂) for the features of one picture. The map is a matrix M (D₂, D₁) with x₁ ≈ Mᵀ x₂, and
what it leaves is ε = x₁ − Mᵀ x₂ with second moment R = E ε εᵀ. So weights w of the first space act as M w in
the second: w · x₁ = (M w) · x₂ + w · ε, with mean squared error wᵀ R w. Rows are not centred: a head has no
intercept, and the mean is a direction like any other.

R is measured on rows left out of the fit (five folds), so it holds what the map cannot express and what too
few rows cannot tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.matrices import symmetric

FOLDS = 5
STRENGTHS = tuple(10.0**power for power in range(-6, 2))  # of ridge, as a multiple of the mean eigenvalue
FEWEST_ROWS = 2 * FOLDS

Solved = tuple[Tensor, Tensor, float | None]  # M, R and the strength of ridge


@dataclass(frozen=True)
class FeatureMap:
    """x₁ ≈ Mᵀ x₂, and what is left."""

    matrix: Tensor  # (D₂, D₁) M, float64
    back: Tensor  # (D₁, D₂) the map the other way, x₂ ≈ backᵀ x₁, float64
    residual: Tensor  # (D₁, D₁) R, float64
    kind: str  # procrustes or ridge
    rows: int  # unlabelled pictures
    explained: float  # 1 − tr R / E |x₁|²
    strength: float | None = None  # of ridge, as a multiple of the mean eigenvalue

    @property
    def untold(self) -> Tensor:
        """G (D₂, D₂): G x₂ is what of x₂ the first features do not tell, x₂ − backᵀ Mᵀ x₂."""
        return torch.eye(len(self.matrix)).to(self.matrix) - (self.matrix @ self.back).mT

    def __repr__(self) -> str:
        second, first = self.matrix.shape
        chosen = "" if self.strength is None else f", strength {self.strength:g}"
        return (
            f"FeatureMap({self.kind} {first} -> {second}, {self.rows} pictures{chosen}: "
            f"{self.explained:.1%} of the length explained)"
        )


def fit_map(first: Tensor, second: Tensor, kind: str = "ridge") -> FeatureMap:
    """The map from rows x₁ (N, D₁) to rows x₂ (N, D₂) of the same pictures.

    ``procrustes``: of the M with orthonormal columns or rows the one with the largest tr MᵀX₂ᵀX₁ (Schönemann
    1966); where the rows do not span both spaces, zero in what they leave open. Lengths are kept, so a prior
    is carried to a prior. ``ridge``: least squares with λ = strength × mean eigenvalue of X₂ᵀX₂; of
    `STRENGTHS` the one with the least squared error on left-out rows.

    Raises:
        UserError: another kind, rows that are no pairs or too few.
    """
    if kind not in KINDS:
        raise UserError(f"--map {kind}: no such map.{nearest(kind, KINDS)} Known: {', '.join(KINDS)}")
    if len(first) != len(second):
        raise UserError(
            f"{len(first)} rows of one encoder and {len(second)} of the other; encode the same pictures"
        )
    if len(first) < FEWEST_ROWS:
        raise UserError(
            f"--unlabelled: {len(first)} pictures; a map takes at least {FEWEST_ROWS}, better a thousand"
        )
    solved = KINDS[kind]
    rows = first.double(), second.double()
    matrix, residual, strength = solved(*rows)
    back = matrix.mT if kind == "procrustes" else solved(*reversed(rows))[0]
    explained = 1 - float(residual.trace() / rows[0].square().sum(-1).mean())
    return FeatureMap(matrix, back, residual, kind, len(first), explained, strength)


def _procrustes(first: Tensor, second: Tensor) -> Solved:
    def solve(rows: Tensor) -> Tensor:
        return _nearest_isometry(second[rows].mT @ first[rows])

    return *_fitted(first, second, solve), None


def _ridge(first: Tensor, second: Tensor) -> Solved:
    def at(strength: float) -> tuple[Tensor, Tensor, float]:
        def solve(rows: Tensor) -> Tensor:
            return _regressed(first[rows], second[rows], strength)

        return *_fitted(first, second, solve), strength

    return min((at(strength) for strength in STRENGTHS), key=lambda found: float(found[1].trace()))


KINDS: dict[str, Callable[[Tensor, Tensor], Solved]] = {"procrustes": _procrustes, "ridge": _ridge}


def _fitted(first: Tensor, second: Tensor, solve: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """M of all rows, and R from maps of four fifths of them each."""
    every = torch.randperm(len(first), generator=torch.Generator().manual_seed(0)).to(first.device)
    left = first.clone()
    for fold in range(FOLDS):
        out = torch.arange(len(every), device=every.device) % FOLDS == fold
        left[every[out]] -= second[every[out]] @ solve(every[~out])
    return solve(every), symmetric(left.mT @ left / len(left))


def _nearest_isometry(cross: Tensor) -> Tensor:
    """U Vᵀ of the singular value decomposition of X₂ᵀ X₁ (D₂, D₁), singular values that are zero left out."""
    left, values, right = torch.linalg.svd(cross, full_matrices=False)
    tiny = values[0] * max(cross.shape) * torch.finfo(cross.dtype).eps
    return (left * (values > tiny)) @ right


def _regressed(first: Tensor, second: Tensor, strength: float) -> Tensor:
    """(X₂ᵀ X₂ + λ I)⁻¹ X₂ᵀ X₁."""
    moment = second.mT @ second
    penalised = moment.clone()
    penalised.diagonal().add_(strength * moment.diagonal().mean())
    return torch.cholesky_solve(second.mT @ first, torch.linalg.cholesky(penalised))
