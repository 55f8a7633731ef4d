"""Beliefs about flat weights carried to another encoder: as they are, or site by site through a map.

The step is that of `carried`, for weights that are no linear head's. With K the map of the weights (each site
that lies in the feature space along its axis), G what the first features do not tell along the same axes, and
the priors N(m₀, V₁) before and N(m₀', V₂) after:

    m' = m₀' + γ K (m − m₀),    P' = K (γ² P + (1 − γ²) V₁) Kᵀ + Gᵀ V₂ G.

γ² = 1 / (1 + q), where q is what the two encoders disagree on: the mean square of the difference between what
the weights change about the logits of either, over the mean prior variance of a logit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief, Diagonal, Full, LowRankPrecision, VariationalDiagonal
from bayes_clip.gaussian.matrices import symmetric
from bayes_clip.inference.sites import WeightSite


@dataclass(frozen=True)
class SiteMap:
    """K: from the flat weights of one program to those of the same program on another encoder."""

    first: Sequence[WeightSite]
    second: Sequence[WeightSite]
    axes: Mapping[str, int]  # of the sites in the feature space, the axis that lies there
    matrix: Tensor  # (D₂, D₁) float64, what it does along that axis
    untold: Tensor  # (D₂, D₂) float64, G along that axis; no other axis is left open

    def __call__(self, columns: Tensor) -> Tensor:
        """K C (P₂, k) for columns C (P₁, k)."""
        return self._moved(columns, self.first, self.matrix)

    def squared(self, variance: Tensor) -> Tensor:
        """The diagonal of K diag(v) Kᵀ, (P₂,)."""
        return self._moved(variance[:, None], self.first, self.matrix.square())[:, 0]

    def own(self, columns: Tensor) -> Tensor:
        """Gᵀ C (P₂, k) for columns C (P₂, k); nothing of sites that do not lie in the feature space."""
        return self._moved(columns, self.second, self.untold.mT, others=0.0)

    def own_squared(self, variance: Tensor) -> Tensor:
        """The diagonal of Gᵀ diag(v) G, (P₂,)."""
        return self._moved(variance[:, None], self.second, self.untold.mT.square(), others=0.0)[:, 0]

    def _moved(
        self, columns: Tensor, sites: Sequence[WeightSite], matrix: Tensor, others: float = 1.0
    ) -> Tensor:
        parts = []
        for before, after in zip(sites, self.second, strict=True):
            part = columns[before.start : before.stop].reshape(*before.shape, -1)
            axis = self.axes.get(before.name)
            if axis is None:
                part = others * part
            else:
                part = torch.tensordot(matrix.to(part), part, dims=([1], [axis])).movedim(0, axis)
            parts.append(part.reshape(after.stop - after.start, -1))
        return torch.cat(parts)


def carried_as_it_is(belief: Belief, prior_mean: Tensor, prior_variance: Tensor, noise: float) -> Belief:
    """Flat weights (P,) that stay what they are, and a process noise of `noise` times the prior variance.

    The stationary step of `StateSpace` with γ² = 1 / (1 + noise) towards the prior N(`prior_mean`,
    `prior_variance`), both (P,): never wider than that prior.
    """
    decay = (1 + noise) ** -0.5
    return belief.diffuse(prior_mean, decay, (1 - decay**2) * prior_variance)


def carried_by_site(
    belief: Full | Diagonal | VariationalDiagonal | LowRankPrecision,
    mean: Tensor,
    first_variance: Tensor,
    second_variance: Tensor,
    through: SiteMap,
    decay: float,
) -> Belief:
    """The belief around `mean` (P₂,) for prior variances V₁ (P₁,) and V₂ (P₂,).

    Exact for `Full`. `Diagonal` and `VariationalDiagonal` keep the marginal variances. Of `LowRankPrecision`
    what its low rank took away is carried exactly, and of the rest and of what is added the diagonal.
    """
    before, after, like, step = first_variance.double(), second_variance.double(), belief.mean, decay**2
    if isinstance(belief, Full):
        inner = step * belief.covariance.double() + (1 - step) * torch.diag(before)
        own = through.own(torch.diag(after.sqrt()))
        covariance = through(through(inner).mT) + own @ own.mT
        return Full(mean.to(like), symmetric(covariance).to(like))
    filling = (1 - step) * through.squared(before) + through.own_squared(after)
    if isinstance(belief, LowRankPrecision):
        exact = belief.exactly()
        diagonal = step * through.squared(1 / exact.diagonal) + filling
        return _with_less(mean.to(like), diagonal, decay * through(exact.removed()))
    variance = (step * through.squared(belief.variance.double()) + filling).to(like)
    if isinstance(belief, Diagonal):
        return Diagonal(mean.to(like), variance)
    return VariationalDiagonal(mean.to(like), 1 / variance)


def disagreement(first: Tensor, second: Tensor) -> float:
    """Mean squared difference of logits (N, C), each row less its mean: the rest moves no probability."""
    left = first.double() - second.double()
    return float((left - left.mean(-1, keepdim=True)).square().mean())


def _with_less(mean: Tensor, diagonal: Tensor, removed: Tensor) -> LowRankPrecision:
    """The belief of covariance diag(d) − G Gᵀ for d (P,) and G (P, L).

    With G̃ = d^-½ G the precision is d⁻¹ + d^-½ G̃ (I − G̃ᵀ G̃)⁻¹ G̃ᵀ d^-½. Only the diagonal of what is not of
    low rank was carried, so G̃ᵀ G̃ may pass 1 where that was uneven: at most 1 − 1e-6 of d is taken away.
    """
    deviation = diagonal.sqrt()
    scaled = removed / deviation[:, None]
    values, vectors = torch.linalg.eigh(scaled.mT @ scaled)
    rest = (1 - values).clamp(1e-6, 1)
    factor = (scaled @ vectors) * rest.rsqrt() / deviation[:, None]
    return LowRankPrecision(mean, (1 / diagonal).to(mean), factor.to(mean).contiguous())
