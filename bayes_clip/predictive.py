"""From uncertain logits to class probabilities: plug-in, Monte-Carlo, and a closed form.

The closed form works on differences of logits, so adding a constant to all of them changes nothing, and a
common variance does not move the most probable class. A probit shrink of raw CLIP logits does (they carry a
common offset of 20 and more).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayes_clip.errors import UserError, nearest

PREDICTIVES: dict[str, str] = {
    "auto": "closed form with the covariance scale that balanced support folds like best; 0 is plug-in",
    "plug_in": "softmax of the posterior mean logits",
    "closed_form": "pairwise Gaussian approximation of the average softmax, whole covariance",
    "monte_carlo": "average softmax over draws from the posterior, whole covariance",
}
NUMBERS_PER_CHUNK = 2**24
MONTE_CARLO_DRAWS = 256
SPLIT_DRAWS = 64


class LogitBelief(Protocol):
    """Anything that says how sure it is of the logits of design rows (N, D)."""

    def logit_moments(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C)."""
        ...

    def sample_logits(self, design: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, N, C) from standard normal `noise` (S, N, C)."""
        ...


@dataclass(frozen=True)
class Prediction:
    """What is said of N inputs; all float tensors on the CPU.

    `aleatoric` + `epistemic` is the entropy of the average softmax under the whole posterior: the expected
    entropy, and the mutual information between label and weights, by Monte-Carlo. `novelty` grows as an
    input is less like the support set: σ² − μ of the winning logit z ~ N(μ, σ²), which is ½ log E[exp(−2 z)].
    The variance alone is high in directions that no label has spoken about; the mean adds what the text knows
    and matters where few labels and broad classes leave the variance high everywhere. For a point estimate it
    is one minus the largest probability.
    """

    probabilities: Tensor  # (N, C)
    aleatoric: Tensor  # (N,) nats
    epistemic: Tensor  # (N,) nats
    novelty: Tensor  # (N,)
    logit_mean: Tensor  # (N, C)
    logit_variance: Tensor  # (N, C)

    def __repr__(self) -> str:
        rows, classes = self.probabilities.shape
        sure = float(self.probabilities.amax(-1).mean()) if rows else float("nan")
        return f"Prediction({rows} inputs, {classes} classes, mean confidence {sure:.3f})"


def find_predictive(name: str) -> str:
    """`name`, if it is one of PREDICTIVES.

    Raises:
        UserError: unknown name.
    """
    if name not in PREDICTIVES:
        raise UserError(
            f"predictive '{name}': no such predictive.{nearest(name, PREDICTIVES)} "
            f"Known: {', '.join(PREDICTIVES)}"
        )
    return name


def closed_form(mean: Tensor, variance: Tensor) -> Tensor:
    """Probabilities (N, C) of softmax averaged over independent logits N(mean, variance), both (N, C).

    p_k ∝ 1 / Σ_j exp(−(μ_k − μ_j) / √(1 + π/8 (σ_k² + σ_j²))): the logistic-Gaussian integral on each pair of
    classes, normalised ("mean-field softmax", Lu, Ie & Sha 2020). Exact where the variance is zero,
    approximate otherwise. O(N C²), in chunks.
    """
    chunk = max(1, NUMBERS_PER_CHUNK // mean.shape[1] ** 2)
    parts = []
    for mu, var in zip(mean.split(chunk), variance.split(chunk), strict=True):
        spread = (1 + math.pi / 8 * (var[:, :, None] + var[:, None, :])).sqrt()
        log_odds = (mu[:, None, :] - mu[:, :, None]) / spread
        parts.append((-log_odds.logsumexp(-1)).softmax(-1))
    return torch.cat(parts)


def monte_carlo(belief: LogitBelief, design: Tensor, draws: int = MONTE_CARLO_DRAWS) -> Tensor:
    """Average softmax (N, C) over `draws` joint draws of each row's logits; the same at every call."""
    return torch.cat([samples.softmax(-1).mean(0) for samples in _draws(belief, design, draws)])


def entropy_split(belief: LogitBelief, design: Tensor, draws: int = SPLIT_DRAWS) -> tuple[Tensor, Tensor]:
    """Aleatoric and epistemic uncertainty (N,) in nats under the whole posterior, by Monte-Carlo."""
    aleatoric, epistemic = [], []
    for samples in _draws(belief, design, draws):
        log_probabilities = samples.log_softmax(-1)
        inside = entropy(log_probabilities.exp()).mean(0)
        aleatoric.append(inside)
        epistemic.append((entropy(log_probabilities.exp().mean(0)) - inside).clamp_min(0))
    return torch.cat(aleatoric), torch.cat(epistemic)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy (..., N) of probabilities (..., N, C) in nats."""
    return torch.special.entr(probabilities).sum(-1)


def _draws(belief: LogitBelief, design: Tensor, draws: int) -> Iterator[Tensor]:
    """Chunks over rows of logit draws (draws, n, C), from a fixed generator."""
    generator = torch.Generator().manual_seed(0)
    classes = belief.logit_moments(design[:1])[0].shape[1]
    for rows in design.split(max(1, NUMBERS_PER_CHUNK // (draws * classes))):
        noise = torch.randn(draws, len(rows), classes, generator=generator).to(rows)
        yield belief.sample_logits(rows, noise)
