"""The softmax observation y ~ Categorical(softmax(z)): log density, residual and curvature in the logits z.

Residual r = ∂ log p/∂z = y − p; curvature R = Fisher information in z = diag(p) − p pᵀ. R is singular
(its rows sum to zero), so everything that uses it works in information form and adds no jitter.
"""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(labels: Tensor, like: Tensor) -> Tensor:
    """Labels (b,) as rows (b, C) of zeros and a one, in the dtype and on the device of `like` (b, C)."""
    return torch.nn.functional.one_hot(labels, like.shape[-1]).to(like)


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(y | z) per row in nats, (b,), from logits (b, C) and labels (b,)."""
    return -torch.nn.functional.cross_entropy(logits, labels, reduction="none")


def residual(logits: Tensor, labels: Tensor) -> Tensor:
    """∂ log p/∂z = y − softmax(z), (b, C)."""
    return one_hot(labels, logits) - logits.softmax(-1)


def curvature(probabilities: Tensor) -> Tensor:
    """Fisher information in the logits, diag(p) − p pᵀ, (b, C, C), from probabilities (b, C)."""
    return torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]


def fixed_noise(draws: int, like: Tensor) -> Tensor:
    """Antithetic standard normal draws (draws, b, C) for logits `like` (b, C), the same at every call.

    Fixed draws make an expectation a deterministic function of its arguments: updates reproduce bit for
    bit and fixed-point iterations converge.
    """
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(draws // 2, *like.shape, generator=generator, dtype=torch.float64)
    return torch.cat([half, -half]).to(like)


def expected_softmax(logits: Tensor, deviation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """E[p] and E[p (1 − p)], each (b, C), for independent logits N(`logits`, `deviation`²), both (b, C).

    Monte-Carlo over `noise` (draws, b, C); the error falls with the root of the number of draws.
    """
    samples = (logits + noise * deviation).softmax(-1)
    return samples.mean(0), (samples * (1 - samples)).mean(0)


def expected_softmax_joint(logits: Tensor, root: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """E[p] (b, C) and E[diag(p) − p pᵀ] (b, C, C) for logits N(`logits`, root rootᵀ), `root` (b, C, C)."""
    samples = (logits + torch.einsum("bij,sbj->sbi", root, noise)).softmax(-1)
    mean = samples.mean(0)
    outer = torch.einsum("sbi,sbj->bij", samples, samples) / len(samples)
    return mean, torch.diag_embed(mean) - outer
