"""What a belief about a head on one encoder says of a head on another: a Kalman predict step through a map.

Two linear heads: logits s₁ w·x₁ with prior w ~ N(t₁, V₁), and s₂ w'·x₂ with prior w' ~ N(t₂, V₂), class by
class; t are the text features (zero-shot). A map x₁ = Mᵀ x₂ + ε (`feature_maps`) gives
s₁ w·x₁ = s₂ (K w)·x₂ + s₁ w·ε with K = (s₁/s₂) M. A change d of zero-shot is carried as

    w' − t₂ = K (γ d + √(1 − γ²) n₁) + Gᵀ n₂,    n₁ ~ N(0, V₁),    n₂ ~ N(0, V₂),

where G x₂ is what of x₂ the first features do not tell (`FeatureMap.untold`): of that the second encoder's
own prior speaks. Without labels d ~ N(0, V₁), and w' has the prior of the first encoder, as a function of the
picture, in what its features tell. With a map that keeps lengths that is the second one's prior N(t₂, V₂)
again, exactly. For a change with mean d and covariance P

    m' = t₂ + γ K d,    P' = K (γ² P + (1 − γ²) V₁) Kᵀ + Gᵀ V₂ G.

Which change? The labels spoke of the head, not of its distance from t₁. In the coordinates of the first
encoder the second one's zero-shot is t* (s₁ t*·x₁ ≈ s₂ t₂·x₂, the map backwards), and a prior N(t*, V₁) would
have given the same labels, to second order of their likelihood, the posterior mean m + P V₁⁻¹ (t* − t₁). So

    d = m − t₁ − (I − P V₁⁻¹)(t* − t₁)    (`labels`):

what the labels settled (P small) stays m, wherever t₁ was; what they left open (P = V₁) is not carried.
Where both encoders' zero-shot agree (t* = t₁) that is the plain `deviation` d = m − t₁, which otherwise hands
over corrections of mistakes that the second encoder does not make. With γ = 1 and ε = 0 all is exact up to
rounding: if x₂ is a rotation of x₁, so is the posterior, and no prediction changes.

The residual makes γ < 1. The logits of d are carried with mean squared error s₁² dᵀ R d, with d less its mean
over the classes (what all logits of a row share moves no probability) and R = E ε εᵀ. Spread over all
directions alike (rows have unit length, so every row then sees as much of it) that is a process noise of
variance (s₁/s₂)² dᵀ R d for every weight, or q times the prior variance v₂. Prior and noise together are
1 + q times the prior; scaled back to it, the step is the stationary one of `StateSpace`, of γ² = 1 / (1 + q)
for each class. What is approximate: ε is a function of the picture, not noise, and its share in a class is
taken to be no larger than elsewhere.
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


def carried_head(
    weights: Weights,
    first: HeadPrior,
    second: HeadPrior,
    mapped: FeatureMap,
    centre: Tensor | None = None,
) -> CarriedHead:
    """The belief over the second head, in the dtype and on the device of `weights`; see above.

    `centre` (C, D₁) is t*, the second prior mean in the coordinates of the first head; without it the plain
    deviation is carried.

    ``diagonal`` and ``diagonal_variational`` keep their structure: the variances, or the inverse of the
    precision's diagonal, of what one block a class would be. All other families become one block a class: of
    what they know of a class alone, exactly; of what ties classes together, nothing.

    Raises:
        UserError: a point or draws, which have no covariance to carry.
    """
    own = class_blocks(weights)
    deviation = weights.mean.double() - first.mean.double()
    if centre is not None:
        moved = centre.to(deviation) - first.mean.double()
        open_part = torch.einsum("cde,ce->cd", own, moved / first.variance.double())
        deviation = deviation - (moved - open_part)
    ratio = first.logit_scale / second.logit_scale
    through = ratio * mapped.matrix.to(deviation)
    decay = carried_decay(deviation, mapped.residual.to(deviation), ratio, second.variance.double())
    mean = second.mean.double() + decay[:, None] * (deviation @ through.mT)
    untold = mapped.untold.to(through)
    priors = zip(first.variance.double(), second.variance.double(), decay.square(), strict=True)
    blocks = torch.stack(
        [
            through @ (step * block + torch.diag((1 - step) * before)) @ through.mT
            + (untold.mT * after) @ untold
            for block, (before, after, step) in zip(own, priors, strict=True)
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
