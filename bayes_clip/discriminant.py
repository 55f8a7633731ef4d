"""Gaussian discriminant analysis in closed form: class means, one shared covariance, a linear classifier.

Wang, Liang, Sheng, He, Wang & Tan, "A hard-to-beat baseline for training-free CLIP-based adaptation" (ICLR
2024). The inverse covariance is the empirical-Bayes ridge estimate of Kubokawa & Srivastava (2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from bayes_clip.inference.batches import balanced_folds

MOST_FOLDS = 8


@dataclass(frozen=True)
class Discriminant:
    """Class scores x Wᵀ + b: W (C, D), b (C,); zero for classes without rows."""

    weights: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Scores (N, C) of features (N, D)."""
        return features @ self.weights.mT + self.bias


def discriminant(features: Tensor, labels: Tensor, classes: int) -> Discriminant:
    """W = M Ω and b_c = −½ m_cᵀ Ω m_c with class means M (C, D) and Ω = D ((n − 1) S + tr(S) I)⁻¹.

    S is the covariance of the n rows (N, D) about their class means; equal class probabilities, whose common
    logarithm is left out. With one row per class there is nothing to see about class means: S is then the
    covariance about the mean of all rows, which is too wide. In float64, returned in the dtype of the rows.
    """
    rows = features.double()
    member = one_hot(labels, classes).to(rows)
    counts = member.sum(0)
    means = (member.mT @ rows) / counts.clamp_min(1)[:, None]
    spread = rows - means[labels] if counts.max() > 1 else rows - rows.mean(0)
    covariance = spread.mT.cov()
    size = rows.shape[1]
    ridge = (len(rows) - 1) * covariance + covariance.trace() * torch.eye(size).to(rows)
    weights = size * torch.linalg.solve(ridge, means.mT).mT
    present = counts > 0
    bias = -(weights * means).sum(-1) / 2
    # a class without rows has no mean: it keeps to what it scores elsewhere, the average of the others
    bias = torch.where(present, bias, bias[present].mean())
    weights = torch.where(present[:, None], weights, weights[present].mean(0))
    return Discriminant(weights.to(features), bias.to(features))


def weight_by_folds(
    features: Tensor, labels: Tensor, known: Tensor, candidates: Sequence[float]
) -> float | None:
    """The α under which `known` + α scores give balanced folds of the rows the lowest NLL; None at one shot.

    `known` (N, C) are the rows' logits without the discriminant, which is found without each fold in turn.
    """
    folds = balanced_folds(labels, MOST_FOLDS)
    if not folds:
        return None
    left_out = torch.empty_like(known)
    for fold in folds:
        kept = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        kept[fold] = False
        found = discriminant(features[kept], labels[kept], known.shape[1])
        left_out[fold] = found.scores(features[fold])
    losses = [float(cross_entropy(known + weight * left_out, labels)) for weight in candidates]
    return candidates[losses.index(min(losses))]
