"""Pyro distributions over flat weights for beliefs that are no product of Pyro's own."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor


class DrawnBelief(Protocol):
    """A Gaussian that says how noise becomes weights, and how dense it is there."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    def weights_from(self, noise: Tensor) -> Tensor:
        """Draws from standard normal noise, both (..., *mean.shape)."""
        ...

    def log_density(self, weights: Tensor) -> Tensor:
        """Log density of weights (..., *mean.shape)."""
        ...


class Drawn(TorchDistribution):
    """A `DrawnBelief` as a distribution over its flat weights (P,), classes outermost."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch asks for
    has_rsample = True

    def __init__(self, belief: DrawnBelief) -> None:
        self.belief = belief
        super().__init__(torch.Size(), torch.Size([belief.mean.numel()]), validate_args=False)

    @property
    def support(self) -> Any:
        return torch.distributions.constraints.real_vector

    @property
    def mean(self) -> Tensor:
        return self.belief.mean.reshape(-1)

    @property
    def variance(self) -> Tensor:
        return self.belief.variance.reshape(-1)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape, mean = torch.Size(sample_shape), self.belief.mean
        noise = torch.randn(shape + mean.shape, dtype=mean.dtype, device=mean.device)
        return self.belief.weights_from(noise).reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.belief.log_density(value.reshape(value.shape[:-1] + self.belief.mean.shape))
