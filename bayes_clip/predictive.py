"""From uncertain logits to class probabilities: plug-in, Monte-Carlo, and a closed form.

The closed form works on differences of logits, so adding a constant to all of them changes nothing, and a
common variance does not move the most probable class. A probit shrink of raw CLIP logits does (they carry a
common offset of 20 and more).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bayes_clip import mean_field
from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.logits import PredictedLogits
from bayes_clip.gaussian.noise import keys_of
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within

PREDICTIVES: dict[str, str] = {
    "auto": "closed form with the covariance scale that balanced support folds like best; 0 is plug-in",
    "plug_in": "softmax of the posterior mean logits",
    "closed_form": "pairwise Gaussian approximation of the average softmax, whole covariance",
    "monte_carlo": "average softmax over draws from the posterior, whole covariance",
}
MONTE_CARLO_DRAWS = 256
SPLIT_DRAWS = 64
DRAWN = 10  # numbers for each logit of a row that is drawn: moments, noise, draw, softmax, running sums
NUMBERS_PER_BLOCK = 2**20  # of logits that are drawn at once: small enough for a CPU's caches


class LogitBelief(Protocol):
    """Anything that says how sure it is of the logits of design rows (N, D)."""

    @property
    def row_numbers(self) -> int:
        """Numbers that predicting one row makes on the way."""
        ...

    def predicted_logits(self, design: Tensor) -> PredictedLogits:
        """Moments and draws of the logits of all these rows."""
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

    Up to 2**24 probabilities are float64; more are kept in the dtype of the weights, and none below 1e-38.
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


def closed_form(mean: Tensor, variance: Tensor, budget: int = WORKING_BYTES) -> Tensor:
    """Probabilities (N, C) of softmax averaged over independent logits N(mean, variance), both (N, C).

    p_k ∝ 1 / Σ_j exp(−(μ_k − μ_j) / √(1 + π/8 (σ_k² + σ_j²))): the logistic-Gaussian integral on each pair of
    classes, normalised ("mean-field softmax", Lu, Ie & Sha 2020). Exact where the variance is zero,
    approximate otherwise. The formula itself is computed to 2e-9: see `mean_field` for many classes.
    """
    return mean_field.probabilities(mean, variance, budget)


def monte_carlo(
    belief: LogitBelief, design: Tensor, draws: int = MONTE_CARLO_DRAWS, budget: int = WORKING_BYTES
) -> Tensor:
    """Average softmax (N, C) over `draws` joint draws of each row's logits; the same at every call.

    Draws are fixed by the row itself: its answer depends neither on the rows beside it nor on the chunks.
    """
    return by_rows(
        lambda rows: (average_softmax(belief.predicted_logits(rows), keys_of(rows), draws, budget),),
        design,
        _rows_at_once(belief, design, budget),
    )[0]


def entropy_split(
    belief: LogitBelief, design: Tensor, draws: int = SPLIT_DRAWS, budget: int = WORKING_BYTES
) -> tuple[Tensor, Tensor]:
    """Aleatoric and epistemic uncertainty (N,) in nats under the whole posterior, by Monte-Carlo.

    A row's draws are those of `monte_carlo` with as many of them.
    """
    aleatoric, epistemic = by_rows(
        lambda rows: average_entropy(belief.predicted_logits(rows), keys_of(rows), draws, budget),
        design,
        _rows_at_once(belief, design, budget),
    )
    return aleatoric, epistemic


def average_softmax(logits: PredictedLogits, keys: Tensor, draws: int, budget: int = WORKING_BYTES) -> Tensor:
    """Average softmax (n, C) over `draws` draws, which stream through one running sum."""
    total = torch.zeros_like(logits.mean)
    for block in logits.streamed(keys, draws, _block(total, budget)):
        weight = (block - block.amax(-1, keepdim=True)).exp_()
        total += weight.div_(weight.sum(-1, keepdim=True)).sum(0)
    return total / draws


def average_entropy(
    logits: PredictedLogits, keys: Tensor, draws: int, budget: int = WORKING_BYTES
) -> tuple[Tensor, Tensor]:
    """Average entropy of the softmax (n,) in nats over the draws, and how far that of the average is above.

    The entropy of logits z ≤ 0 with largest 0 is log Σ eᶻ − Σ z eᶻ / Σ eᶻ, two terms that are not negative.
    """
    average = torch.zeros_like(logits.mean)
    inside = torch.zeros_like(average[:, 0])
    for block in logits.streamed(keys, draws, _block(average, budget)):
        below = block - block.amax(-1, keepdim=True)
        weight = below.exp()
        total = weight.sum(-1, keepdim=True)
        weight /= total
        inside += (total.log()[..., 0] - below.mul_(weight).sum(-1)).sum(0)
        average += weight.sum(0)
    inside /= draws
    return inside, (entropy(average / draws) - inside).clamp_min(0)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy (..., N) of probabilities (..., N, C) in nats."""
    return torch.special.entr(probabilities).sum(-1)


def _rows_at_once(belief: LogitBelief, design: Tensor, budget: int) -> int:
    """Rows whose predicted logits, with all that draws of them take, fit into the budget."""
    classes = belief.predicted_logits(design[:1]).mean.shape[1]
    numbers = design[:1].numel() + belief.row_numbers + DRAWN * classes
    return rows_within(budget, numbers * design.element_size())


def _block(like: Tensor, budget: int) -> int:
    """Numbers in one block of draws: noise, draw and softmax of it are there at once."""
    return min(NUMBERS_PER_BLOCK, budget // (4 * like.element_size()))
