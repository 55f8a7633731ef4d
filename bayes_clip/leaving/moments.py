"""What predicts the logits of a posterior: their mean, and their variance under each kind of belief.

Modules of plain tensors and operations that torch.export and ONNX know. Each is the same formula as the
belief's own `logit_moments`, without its chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bayes_clip.errors import UserError
from bayes_clip.gaussian import ClassBlock, Diagonal, Full, Kronecker, LowRankPrecision, VariationalDiagonal
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.engines import Weights


class Moments(nn.Module):
    """Design rows (N, D) -> mean and variance (N, C) of the logits under weights of mean (C, D)."""

    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.mean: Tensor

    def forward(self, design: Tensor) -> tuple[Tensor, Tensor]:
        return design @ self.mean.mT, self.variance(design)

    def variance(self, design: Tensor) -> Tensor:
        """(N, C); none for a point."""
        return torch.zeros_like(design @ self.mean.mT)


class OfBlocks(Moments):
    """xᵀ P_c x, with P_c (C, D, D) as columns side by side: one matrix product of N D numbers by D C D."""

    def __init__(self, mean: Tensor, blocks: Tensor) -> None:
        super().__init__(mean)
        classes, features = mean.shape
        self.register_buffer("columns", blocks.permute(1, 0, 2).reshape(features, classes * features))
        self.columns: Tensor
        self.shape = (classes, features)

    def variance(self, design: Tensor) -> Tensor:
        turned = (design @ self.columns).reshape(-1, *self.shape)
        return (turned * design[:, None, :]).sum(-1).clamp_min(0)


class OfDiagonal(Moments):
    """Σ x² v_c."""

    def __init__(self, mean: Tensor, variances: Tensor) -> None:
        super().__init__(mean)
        self.register_buffer("variances", variances)
        self.variances: Tensor

    def variance(self, design: Tensor) -> Tensor:
        return design.square() @ self.variances.mT


class OfKronecker(Moments):
    """Along the shared axes of features and classes."""

    def __init__(self, belief: Kronecker) -> None:
        super().__init__(belief.mean)
        self.register_buffer("axes", belief.feature_axes)
        self.register_buffer("weights", (belief.class_axes.square() @ belief.spread).mT)
        self.axes: Tensor
        self.weights: Tensor

    def variance(self, design: Tensor) -> Tensor:
        return (design @ self.axes).square() @ self.weights


class OfFactors(Moments):
    """Σ x² v_c plus or less the squares of x·f over the factors (C, D, k) of a class."""

    def __init__(self, mean: Tensor, variances: Tensor, factor: Tensor, sign: float) -> None:
        super().__init__(mean)
        classes, features, count = factor.shape
        self.register_buffer("variances", variances)
        self.register_buffer("columns", factor.transpose(0, 1).reshape(features, classes * count))
        self.variances: Tensor
        self.columns: Tensor
        self.shape, self.sign = (classes, count), sign

    def variance(self, design: Tensor) -> Tensor:
        seen = (design @ self.columns).reshape(-1, *self.shape)
        own = design.square() @ self.variances.mT
        return (own + self.sign * seen.square().sum(-1)).clamp_min(0)


class OfDraws(Moments):
    """The mean and spread of the logits under draws (S, C, D) of a Markov chain."""

    def __init__(self, samples: Tensor) -> None:
        super().__init__(samples.mean(0))
        self.register_buffer("apart", samples - samples.mean(0))
        self.apart: Tensor

    def variance(self, design: Tensor) -> Tensor:
        return torch.einsum("nd,scd->snc", design, self.apart).square().mean(0)


def moments_of(weights: Weights) -> Moments:
    """The module for the weights (C, D) of a linear head.

    Raises:
        UserError: a belief that is not known here.
    """
    match weights:
        case Point():
            return Moments(weights.mean)
        case Draws():
            return OfDraws(weights.samples)
        case ClassBlock():
            return OfBlocks(weights.mean, weights.covariance)
        case Full():
            classes, features = weights.mean.shape
            whole = weights.covariance.reshape(classes, features, classes, features)
            return OfBlocks(weights.mean, whole.diagonal(dim1=0, dim2=2).permute(2, 0, 1))
        case Diagonal() | VariationalDiagonal():
            return OfDiagonal(weights.mean, weights.variance)
        case Kronecker():
            return OfKronecker(weights)
        case LowRankPrecision():
            removed = weights.exactly().removed().to(weights.mean)
            return OfFactors(weights.mean, 1 / weights.diagonal, removed, -1.0)
        case LowRank():
            return OfFactors(weights.mean, weights.variance, weights.factor, 1.0)
    raise UserError(f"export: weights of kind {type(weights).__name__} are not known; fit with --engine ekf")
