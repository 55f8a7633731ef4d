"""What every Gaussian belief over class weights offers, and the projection of a batch onto it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor

from bayes_clip.gaussian.gram import Gram
from bayes_clip.gaussian.logits import PredictedLogits
from bayes_clip.memory import WORKING_BYTES


@dataclass(frozen=True)
class Projection:
    """A batch seen through a belief: predicted logits, their covariance, and its tie to the weights."""

    logits: Tensor  # (b, C) predicted mean
    gram: Gram  # their covariance
    cross: Tensor  # covariance of weights and logits: P Hᵀ, in the shape of the family
    design: Tensor  # (b, D), or a Jacobian (b, C, P)


class Belief(Protocol):
    """A Gaussian over weights, whose logits are H w.

    For a linear head the weights are (C, D) and the design Φ (b, D), shared by the classes: logits Φ Wᵀ. Any
    other program has flat weights (P,) and a Jacobian (b, C, P); see `design`. Implementations are frozen
    dataclasses of tensors: `mean` and a covariance of their own shape.
    """

    @property
    def mean(self) -> Tensor: ...

    @classmethod
    def from_prior(cls, mean: Tensor, variance: Tensor) -> Self:
        """Independent weights with the given mean and variance, of one shape."""
        ...

    def project(self, design: Tensor) -> Projection:
        """Predicted logits of a batch, their covariance, and the cross-covariance with the weights."""
        ...

    def condition(self, projection: Projection, dual: Tensor, downdate: Tensor) -> Self:
        """Mean + P Hᵀ a and covariance − P Hᵀ B H P, for dual a (b, C) and downdate B of the Gram's shape."""
        ...

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> Self:
        """One time step: m₀ + γ (m − m₀), γ P γ + diag(Q).

        `process_noise` holds variances; it and a `decay` per weight are shaped like the mean.
        """
        ...

    @property
    def row_numbers(self) -> int:
        """Numbers that predicting one row of a linear head makes on the way, beside its moments (2, C)."""
        ...

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean (N, C) and variance (N, C) of the logits of N design rows; works within `budget` bytes."""
        ...

    def predicted_logits(self, design: Tensor) -> PredictedLogits:
        """Moments and draws of the logits of n design rows at once; mind `row_numbers`."""
        ...
