"""What a belief about a head on one encoder says of a head on another: a Kalman predict step through a map.

Two linear heads: logits s₁ w·x₁ with prior w ~ N(t₁, V₁), and s₂ w'·x₂ with prior w' ~ N(t₂, V₂), class by
class; t are the text features (zero-shot). A map x₁ = Mᵀ x₂ + ε (`feature_maps`) gives
s₁ w·x₁ = s₂ (K w)·x₂ + s₁ w·ε with K = (s₁/s₂) M. What labels change about zero-shot is carried:

    w' − t₂ = γ K (w − t₁) + n,    n ~ N(0, V₂ − γ² K V₁ Kᵀ).

The noise n is what keeps the prior: with no labels seen, w ~ N(t₁, V₁) becomes w' ~ N(t₂, V₂) exactly. For a
belief N(m, P) this leaves

    m' = t₂ + γ K (m − t₁),    P' = γ² K P Kᵀ + (V₂ − γ² K V₁ Kᵀ),

never wider than the second encoder's prior, and equal to it in directions of which the first says nothing.
Exact (up to rounding) for γ = 1 where ε = 0: if x₂ is a rotation of x₁, so is the posterior, and no
prediction changes.

The residual makes γ < 1. The logits of the mean are carried with mean squared error s₁² dᵀ R d, where d is
m − t₁ less its mean over the classes (what all logits of a row share moves no probability) and R = E ε εᵀ.
Spread over all directions alike (rows have unit length, so every row then sees as much of it) that is a
process noise of variance (s₁/s₂)² dᵀ R d for every weight, or q times the prior variance v₂. Prior and noise
together are 1 + q times the prior; scaled back to it, the step is the stationary one of `StateSpace`, with
γ² = 1 / (1 + q) for each class. What is approximate: ε is a function of the picture, not noise, and its share
in a class is taken to be no larger than elsewhere.

The deviation is carried, not the head: t₂ is known without error, and carrying t₁ would charge R for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FeatureMap
from bayes_clip.gaussian import (
    ClassBlock,
    Diagonal,
    Full,
    Kronecker,
    LowRankPrecision,
    VariationalDiagonal,
)
from bayes_clip.gaussian.matrices import symmetric
from bayes_clip.gaussian.point import LowRank
from bayes_clip.inference.program_logits import Weights


@dataclass(frozen=True)
class HeadPrior:
    """The prior of a linear head, and the scale of its logits."""

    mean: Tensor  # (C, D)
    variance: Tensor  # (C, D)
    logit_scale: float


@dataclass(frozen=True)
class CarriedHead:
    """The belief over the second head, and what the residual made of each class."""

    belief: ClassBlock | Diagonal | VariationalDiagonal
    decay: Tensor  # (C,) γ

    @property
    def noise(self) -> Tensor:
        """q (C,): the process noise as a multiple of the prior variance."""
        return self.decay**-2 - 1


def carried_head(weights: Weights, first: HeadPrior, second: HeadPrior, mapped: FeatureMap) -> CarriedHead:
    """The belief over the second head, in the dtype and on the device of `weights`; see above.

    ``diagonal`` and ``diagonal_variational`` keep their structure: the variances, or the inverse of the
    precision's diagonal, of what one block a class would be. All other families become one block a class: of
    what they know of a class alone, exactly; of what ties classes together, nothing.

    Raises:
        UserError: a point or draws, which have no covariance to carry.
    """
    deviation = weights.mean.double() - first.mean.double()
    ratio = first.logit_scale / second.logit_scale
    through = ratio * mapped.matrix.to(deviation)
    decay = carried_decay(deviation, mapped.residual.to(deviation), ratio, second.variance.double())
    mean = second.mean.double() + decay[:, None] * (deviation @ through.mT)
    priors = zip(first.variance.double(), second.variance.double(), decay, strict=True)
    blocks = torch.stack(
        [
            _carried_block(block, before, after, step * through)
            for block, (before, after, step) in zip(class_blocks(weights), priors, strict=True)
        ]
    )
    like = weights.mean
    belief: ClassBlock | Diagonal | VariationalDiagonal
    if isinstance(weights, Diagonal):
        belief = Diagonal(mean.to(like), blocks.diagonal(dim1=1, dim2=2).to(like))
    elif isinstance(weights, VariationalDiagonal):
        precision = torch.cholesky_inverse(torch.linalg.cholesky(blocks))
        belief = VariationalDiagonal(mean.to(like), precision.diagonal(dim1=1, dim2=2).to(like))
    else:
        belief = ClassBlock(mean.to(like), blocks.to(like))
    return CarriedHead(belief, decay)


def carried_decay(deviation: Tensor, residual: Tensor, ratio: float, variance: Tensor) -> Tensor:
    """γ (C,) from the deviations (C, D₁), R (D₁, D₁), s₁/s₂ and the second prior's variances (C, D₂)."""
    centred = deviation - deviation.mean(0)
    error = ratio**2 * torch.einsum("cd,de,ce->c", centred, residual, centred).clamp_min(0)
    return (1 + error / variance.mean(1)).rsqrt()


def class_blocks(weights: Weights) -> Tensor:
    """The covariance of each class's own weights (C, D, D), in float64.

    Raises:
        UserError: a point or draws.
    """
    if isinstance(weights, ClassBlock):
        return weights.covariance.double()
    if isinstance(weights, Diagonal | VariationalDiagonal):
        return torch.diag_embed(weights.variance.double())
    if isinstance(weights, Full):
        shape = weights.mean.shape
        blocks = weights.covariance.reshape(*shape, *shape).diagonal(dim1=0, dim2=2)
        return blocks.permute(2, 0, 1).double()
    if isinstance(weights, Kronecker):
        along = weights.class_axes.double().square() @ weights.spread.double()
        axes = weights.feature_axes.double()
        return (axes * along[:, None, :]) @ axes.mT
    if isinstance(weights, LowRankPrecision):
        exact = weights.exactly()
        removed = exact.removed()
        return torch.diag_embed(1 / exact.diagonal) - removed @ removed.mT
    if isinstance(weights, LowRank):
        factor = weights.factor.double()
        return torch.diag_embed(weights.variance.double()) + factor @ factor.mT
    raise UserError(
        f"{type(weights).__name__.lower()} weights: they have no covariance to carry over; fit again with "
        "--engine ekf or laplace"
    )


def _carried_block(block: Tensor, before: Tensor, after: Tensor, through: Tensor) -> Tensor:
    """γ² K P Kᵀ + (V₂ − γ² K V₁ Kᵀ) (D₂, D₂), of γ K; the filling is never negative.

    It would be where a map of least squares makes a direction longer; the prior is then exceeded there.
    """
    filling = torch.diag(after) - (through * before) @ through.mT
    values, vectors = torch.linalg.eigh(filling)
    filled = (vectors * values.clamp_min(0)) @ vectors.mT
    return symmetric(through @ block @ through.mT + filled)
