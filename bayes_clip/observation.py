"""Observations y ~ p(y | z) of a row's K logits z: log density, and its first two derivatives in z.

residual r = ∂ log p/∂z = target − response; curvature R = Fisher information in z.

    softmax    response p = softmax(z)      R = diag(p) − p pᵀ        labels (b,)
    bernoulli  response p = sigmoid(z)      R = diag(p (1 − p))       labels (b,) or (b, K) of 0 and 1
    gaussian   response z/σ²                R = I/σ²                  values (b,) or (b, K)

The softmax R is singular (its rows sum to zero), so everything that uses it works in information form and
adds no jitter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature, SeparateCurvature, SoftmaxCurvature


class Observation(Protocol):
    """What a likelihood site says of the logits; all float tensors (b, K) unless said."""

    name: ClassVar[str]

    def log_likelihood(self, logits: Tensor, labels: Tensor) -> Tensor:
        """log p(y | z) per row in nats, (..., b), from logits (..., b, K)."""
        ...

    def target(self, labels: Tensor, like: Tensor) -> Tensor:
        """What the response is compared with: residual = target − response."""
        ...

    def response(self, logits: Tensor) -> Tensor:
        """The mean of the sufficient statistic, (..., b, K)."""
        ...

    def curvature(self, logits: Tensor) -> Curvature:
        """Fisher information in the logits."""
        ...

    def expected(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Average response and average diagonal curvature, (b, K) each, over samples (S, b, K) of logits."""
        ...

    def expected_joint(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Average response (b, K) and average curvature (b, K, K) over samples (S, b, K) of logits."""
        ...

    def predictive_score(
        self, samples: Tensor, labels: Tensor, mean: Tensor, covariance: Callable[[], Tensor]
    ) -> Tensor:
        """log ∫ p(y | z) N(z; mean, covariance) dz per row (b,); `samples` (S, b, K) are drawn from it.

        The covariance (b, K, K) is asked for where it is needed alone: it is large.
        """
        ...

    def class_logits(self, logits: Tensor) -> Tensor:
        """Logits (..., C) of the classes, whose softmax is the probability of each, from (..., K); affine."""
        ...

    def class_variance(self, variance: Tensor) -> Tensor:
        """Variance (..., C) of `class_logits` from the variance (..., K) of independent logits."""
        ...


@dataclass(frozen=True)
class Softmax:
    """y ~ Categorical(softmax(z)): one of C classes."""

    name: ClassVar[str] = "softmax"

    def log_likelihood(self, logits: Tensor, labels: Tensor) -> Tensor:
        """log softmax(z) at the label, (..., b)."""
        picked = labels.expand(logits.shape[:-1])[..., None]
        return logits.log_softmax(-1).gather(-1, picked)[..., 0]

    def target(self, labels: Tensor, like: Tensor) -> Tensor:
        """One-hot rows."""
        return (labels[:, None] == torch.arange(like.shape[-1], device=labels.device)).to(like)

    def response(self, logits: Tensor) -> Tensor:
        """softmax(z)."""
        return logits.softmax(-1)

    def curvature(self, logits: Tensor) -> Curvature:
        """diag(p) − p pᵀ."""
        return SoftmaxCurvature(logits.softmax(-1))

    def expected(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """E[p] and E[p (1 − p)]."""
        probabilities = samples.softmax(-1)
        mean = probabilities.mean(0)
        return mean, (mean - probabilities.square_().mean(0)).clamp_min_(0)

    def expected_joint(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """E[p] and E[diag(p) − p pᵀ]."""
        probabilities = samples.softmax(-1)
        mean = probabilities.mean(0)
        outer = torch.einsum("sbi,sbj->bij", probabilities, probabilities) / len(samples)
        return mean, torch.diag_embed(mean) - outer

    def predictive_score(
        self, samples: Tensor, labels: Tensor, mean: Tensor, covariance: Callable[[], Tensor]
    ) -> Tensor:
        """By Monte-Carlo over the samples."""
        return _log_mean_likelihood(self, samples, labels)

    def class_logits(self, logits: Tensor) -> Tensor:
        """The logits themselves."""
        return logits

    def class_variance(self, variance: Tensor) -> Tensor:
        """The variance itself."""
        return variance


@dataclass(frozen=True)
class Bernoulli:
    """Every y_k ~ Bernoulli(sigmoid(z_k)): one output for two classes, or one against the rest for each."""

    name: ClassVar[str] = "bernoulli"

    def log_likelihood(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the outputs, (..., b)."""
        target = self.target(labels, logits).expand(logits.shape)
        return -torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)

    def target(self, labels: Tensor, like: Tensor) -> Tensor:
        """The labels as numbers."""
        return labels.reshape(len(labels), -1).to(like)

    def response(self, logits: Tensor) -> Tensor:
        """sigmoid(z)."""
        return logits.sigmoid()

    def curvature(self, logits: Tensor) -> Curvature:
        """diag(p (1 − p))."""
        return SeparateCurvature(logits.sigmoid() * (-logits).sigmoid())

    def expected(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """E[p] and E[p (1 − p)]."""
        return samples.sigmoid().mean(0), (samples.sigmoid() * (-samples).sigmoid()).mean(0)

    def expected_joint(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """E[p] and E[p (1 − p)] on a diagonal."""
        mean, own = self.expected(samples)
        return mean, torch.diag_embed(own)

    def predictive_score(
        self, samples: Tensor, labels: Tensor, mean: Tensor, covariance: Callable[[], Tensor]
    ) -> Tensor:
        """By Monte-Carlo over the samples."""
        return _log_mean_likelihood(self, samples, labels)

    def class_logits(self, logits: Tensor) -> Tensor:
        """(0, z) for one output; for C outputs z: exactly one of them is on, with odds exp(z_k)."""
        return _against_zero(logits)

    def class_variance(self, variance: Tensor) -> Tensor:
        """(0, v) for one output, else v."""
        return _against_zero(variance)


@dataclass(frozen=True)
class Gaussian:
    """Every y_k ~ N(z_k, σ²), σ² the `variance` (K,) or (): the observation for which the filter is exact."""

    variance: Tensor
    name: ClassVar[str] = "gaussian"

    def log_likelihood(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the outputs, (..., b)."""
        excess = labels.reshape(len(labels), -1).to(logits) - logits
        density = excess.square() / self.variance + (2 * math.pi * self.variance).log()
        return -density.expand(logits.shape).sum(-1) / 2

    def target(self, labels: Tensor, like: Tensor) -> Tensor:
        """y/σ²."""
        return labels.reshape(len(labels), -1).to(like) / self.variance

    def response(self, logits: Tensor) -> Tensor:
        """z/σ²."""
        return logits / self.variance

    def curvature(self, logits: Tensor) -> Curvature:
        """I/σ²."""
        return SeparateCurvature((1 / self.variance).to(logits).expand(logits.shape))

    def expected(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The response is linear and the curvature constant; antithetic samples have the mean exactly."""
        mean = samples.mean(0)
        return mean / self.variance, (1 / self.variance).to(mean).expand(mean.shape)

    def expected_joint(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """The same, the curvature on a diagonal."""
        mean, own = self.expected(samples)
        return mean, torch.diag_embed(own)

    def predictive_score(
        self, samples: Tensor, labels: Tensor, mean: Tensor, covariance: Callable[[], Tensor]
    ) -> Tensor:
        """log N(y; mean, covariance + σ² I), exactly."""
        spread = covariance() + torch.diag_embed(self.variance.to(mean).expand(mean.shape))
        normal = torch.distributions.MultivariateNormal(mean, spread, validate_args=False)
        return normal.log_prob(labels.reshape(len(labels), -1).to(mean))

    def class_logits(self, logits: Tensor) -> Tensor:
        """log N(e_k; z, σ²) of each class's one-hot vector e_k, up to a constant: (z − ½)/σ²."""
        return _against_zero((logits - 0.5) / self.variance)

    def class_variance(self, variance: Tensor) -> Tensor:
        """v/σ⁴."""
        return _against_zero(variance / self.variance.square())


SOFTMAX = Softmax()
NOISE_KEPT = 4


def fixed_noise(draws: int, like: Tensor) -> Tensor:
    """Antithetic standard normal draws (draws, b, C) for logits `like` (b, C), the same at every call.

    Fixed draws make an expectation a deterministic function of its arguments: updates reproduce bit for
    bit and fixed-point iterations converge. The last few are kept, to be read only.
    """
    return _kept_noise(draws, like.shape, like.dtype, like.device)


@lru_cache(maxsize=NOISE_KEPT)
def _kept_noise(draws: int, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(draws // 2, *shape, generator=generator, dtype=torch.float64)
    return torch.cat([half, -half]).to(device, dtype)


def _log_mean_likelihood(observation: Observation, samples: Tensor, labels: Tensor) -> Tensor:
    return observation.log_likelihood(samples, labels).logsumexp(0) - math.log(len(samples))


def _against_zero(logits: Tensor) -> Tensor:
    """One output stands for the second of two classes, whose rival is zero."""
    if logits.shape[-1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=-1)
