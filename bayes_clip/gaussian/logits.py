"""The joint distribution of each row's logits, as a belief predicts it: moments, and draws in blocks.

All of what a draw needs (roots, factors) is found once for n rows; draws then stream through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from bayes_clip.gaussian.matrices import root_of
from bayes_clip.gaussian.noise import antithetic


class PredictedLogits(Protocol):
    """The logits of n rows; different rows are independent."""

    @property
    def mean(self) -> Tensor:
        """(n, C)."""
        ...

    @property
    def variance(self) -> Tensor:
        """(n, C)."""
        ...

    def streamed(self, keys: Tensor, draws: int, numbers: int) -> Iterator[Tensor]:
        """Blocks (s, n, C) of `draws` joint draws of each row, fixed by its key (n,); see `noise`.

        As many draws make a block as `numbers` allow, at least one. It may be overwritten by the next.
        """
        ...


@dataclass(frozen=True)
class Noisy:
    """Logits whose draws are a function of standard normal noise (s, n, `width`)."""

    mean: Tensor  # (n, C)
    variance: Tensor  # (n, C)

    @property
    def width(self) -> int:
        """Numbers of noise that one draw of a row takes."""
        return self.mean.shape[1]

    def draw(self, noise: Tensor) -> Tensor:
        """Draws (s, n, C) from standard normal noise (s, n, width)."""
        raise NotImplementedError

    def streamed(self, keys: Tensor, draws: int, numbers: int) -> Iterator[Tensor]:
        """Blocks (s, n, C) of draws."""
        at_once = max(1, numbers // max(1, len(keys) * self.width))
        for noise in antithetic(keys, self.width, draws, at_once, self.mean):
            yield self.draw(noise)


@dataclass(frozen=True)
class SeparateLogits(Noisy):
    """Independent over classes: moments say it all."""

    def draw(self, noise: Tensor) -> Tensor:
        """m + σ ε."""
        return torch.addcmul(self.mean, self._deviation, noise)

    @cached_property
    def _deviation(self) -> Tensor:
        return self.variance.sqrt()


@dataclass(frozen=True)
class JointLogits(Noisy):
    """Any covariance of the classes, by the root of each row's."""

    root: Tensor  # (n, C, C), symmetric

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor) -> JointLogits:
        """From covariances (n, C, C)."""
        return cls(mean, covariance.diagonal(dim1=1, dim2=2).clamp_min(0), root_of(covariance))

    def draw(self, noise: Tensor) -> Tensor:
        """m + L ε."""
        return self.mean + (noise.transpose(0, 1) @ self.root.mT).transpose(0, 1)


@dataclass(frozen=True)
class TurnedLogits(Noisy):
    """Independent along axes that all rows share: covariance E diag(σ²) Eᵀ."""

    deviation: Tensor  # (n, C) along the axes
    axes: Tensor  # (C, C) E

    def draw(self, noise: Tensor) -> Tensor:
        """m + E σ ε."""
        return self.mean + (noise * self.deviation) @ self.axes.mT


@dataclass(frozen=True)
class FactorLogits(Noisy):
    """Independent noise of every class plus k factors that the classes share: covariance diag(v) + Z Zᵀ."""

    own_variance: Tensor  # (n, C) v
    shared: Tensor  # (n, C, k) Z

    @property
    def width(self) -> int:
        """C numbers for the classes, then k for the factors."""
        return self.mean.shape[1] + self.shared.shape[2]

    def draw(self, noise: Tensor) -> Tensor:
        """m + √v ε + Z η."""
        own, common = noise.split([self.mean.shape[1], self.shared.shape[2]], dim=-1)
        draws = torch.addcmul(self.mean, self.own_variance.sqrt(), own)
        return draws + (common.transpose(0, 1) @ self.shared.mT).transpose(0, 1)


@dataclass(frozen=True)
class DowndatedLogits(Noisy):
    """Covariance diag(v) − Z Zᵀ of low rank L < C.

    With Y = v^-½ Z and Yᵀ Y = V μ Vᵀ, the symmetric root of I − Y Yᵀ is I − Y V diag(1/(1 + √(1 − μ))) Vᵀ Yᵀ.
    """

    deviation: Tensor  # (n, C) √v
    turned: Tensor  # (n, C, L) Y V
    weight: Tensor  # (n, L)

    @classmethod
    def of(cls, mean: Tensor, own_variance: Tensor, removed: Tensor) -> DowndatedLogits:
        """From v (n, C) and Z (n, C, L)."""
        deviation = own_variance.sqrt()
        scaled = removed / deviation.clamp_min(torch.finfo(removed.dtype).tiny)[..., None]
        values, vectors = torch.linalg.eigh(scaled.mT @ scaled)
        variance = (own_variance - removed.square().sum(-1)).clamp_min(0)
        weight = 1 / (1 + (1 - values).clamp_min(0).sqrt())
        return cls(mean, variance, deviation, scaled @ vectors, weight)

    def draw(self, noise: Tensor) -> Tensor:
        """m + √v (I − Y Yᵀ)^½ ε."""
        by_row = noise.transpose(0, 1)  # (n, s, C)
        inner = (by_row @ self.turned) * self.weight[:, None]
        return self.mean + (self.deviation[:, None] * (by_row - inner @ self.turned.mT)).transpose(0, 1)


@dataclass(frozen=True)
class ChainLogits:
    """Logits under draws of the weights that a Markov chain left."""

    mean: Tensor  # (n, C)
    variance: Tensor  # (n, C)
    length: int  # of the chain
    logits_of: Callable[[int], Tensor]  # position in the chain -> (n, C)

    def streamed(self, keys: Tensor, draws: int, numbers: int) -> Iterator[Tensor]:
        """`draws` of the chain's, evenly spaced along it, the same for all rows; `keys` are not used."""
        at_once = max(1, numbers // max(1, self.mean.numel()))
        for picked in evenly_spaced(self.length, draws).split(at_once):
            yield torch.stack([self.logits_of(index) for index in picked.tolist()])


def evenly_spaced(length: int, count: int) -> Tensor:
    """`count` positions along a chain of `length` draws, from the first to the last."""
    return torch.linspace(0, length - 1, count).round().long()
