"""Is the filter surprised as often as it says it will be? Its innovations, checked batch after batch.

A filter predicts every batch before it learns it. Where its beliefs are right, what it predicts and what
comes differ as it said: the normalised innovation squared νᵀ S⁻¹ ν has the distribution that the filter
itself implies, and innovations of different batches do not correlate (Bar-Shalom, Li & Kirubarajan 2001,
section 5.4).

For Gaussian observations the normalised innovation squared is chi-square with one degree of freedom for
each number observed. For labels it is not, even of an exact filter: a label that was predicted with
probability 0.99 gives nearly nothing 99 times in a hundred and about a hundred otherwise, with a mean of one
for each free class and a spread that chi-square does not know. Labels are therefore held against what the
filter itself would have drawn: the rank of the statistic among those of simulated labels, and the randomised
probability integral transform of each label, given the ones before it (Dawid 1984; Smith 1985). Both are
uniform and independent for an exact filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import chi2, norm
from torch import Tensor

from bayes_clip.evaluation import uniformity
from bayes_clip.evaluation.uniformity import PASSES, Uniformity, check_uniform
from bayes_clip.gaussian.design import pull_back
from bayes_clip.gaussian.gram import Gram
from bayes_clip.gaussian.matrices import root_of

DRAWS = 199  # simulated batches that a statistic is ranked among
LOGIT_DRAWS = 2000
SLUGGISH, OVERSHOOTS = "innovations repeat", "innovations alternate"


@dataclass(frozen=True)
class Innovation:
    """What one batch of b rows said against its prediction."""

    nis: float  # normalised innovation squared
    degrees_of_freedom: int  # what the filter expects of it
    nis_rank: int  # its rank in 0..DRAWS among what the filter would draw
    transforms: np.ndarray  # randomised probability integral transforms, in 0..1
    pulled: Tensor  # Hᵀ(y − p): the innovation in the weights


@dataclass(frozen=True)
class Consistency:
    """Innovations of a filter over many streams, tested.

    `whiteness` is the correlation of successive innovations in standard errors: positive where the filter
    moves too little and meets the same surprise again, negative where it overshoots.
    """

    nis: Uniformity
    transforms: Uniformity
    whiteness: float
    nis_ratio: float  # normalised innovation squared over its degrees of freedom, all batches together
    batches: int
    nis_ranks: np.ndarray
    transform_ranks: np.ndarray

    @property
    def whiteness_p(self) -> float:
        """p-value of `whiteness`, two-sided."""
        return float(2 * norm.sf(abs(self.whiteness)))

    @property
    def verdict(self) -> str:
        """`passes`; `too narrow`, `too wide`, `shifted`, `misshapen`; or what the innovations do."""
        p_values = np.array([self.nis.p_value, self.transforms.p_value, self.whiteness_p])
        failing = uniformity.rejected(p_values)
        if not failing.any():
            return PASSES
        if failing[0]:  # more surprised than it thought: every rank high
            return uniformity.NARROW if self.nis.shift > 0 else uniformity.WIDE
        if failing[1]:
            return uniformity.verdict([self.transforms], [False])
        return SLUGGISH if self.whiteness > 0 else OVERSHOOTS


def consistency(streams: Sequence[Sequence[Innovation]]) -> Consistency:
    """Test the innovations of several independent streams, each a sequence of batches.

    Only the distribution is tested over all batches at once; whiteness never pairs batches of two streams.
    """
    every = [innovation for stream in streams for innovation in stream]
    nis_ranks = np.array([innovation.nis_rank for innovation in every])
    transforms = np.concatenate([innovation.transforms for innovation in every])
    ranks = np.minimum((transforms * (DRAWS + 1)).astype(int), DRAWS)
    return Consistency(
        nis=check_uniform(nis_ranks, DRAWS),
        transforms=check_uniform(ranks, DRAWS),
        whiteness=_whiteness(streams),
        nis_ratio=sum(each.nis for each in every) / sum(each.degrees_of_freedom for each in every),
        batches=len(every),
        nis_ranks=nis_ranks,
        transform_ranks=ranks,
    )


def label_innovation(logits: Tensor, gram: Gram, design: Tensor, labels: Tensor, seed: int) -> Innovation:
    """The innovation of a batch of labels (b,) under predicted `logits` (b, C) with covariance `gram`.

    The statistic of a row is (y − p)ᵀ S⁻ (y − p) = 1/p_y − 1 with S = diag(p) − p pᵀ, p the predictive
    probabilities, by 2000 draws of the batch's logits; rows are drawn together, so that what they share
    is in the reference. The transforms weigh those draws by the rows that came before.
    """
    generator = torch.Generator().manual_seed(seed)
    log_probabilities = _logit_draws(logits, gram, generator).log_softmax(-1)
    probabilities = log_probabilities.exp().mean(0).clamp_min(torch.finfo(logits.dtype).tiny)
    simulated = torch.distributions.Categorical(logits=log_probabilities[:DRAWS])
    reference = _pearson(probabilities, _sampled(simulated.probs, generator))
    observed = _pearson(probabilities, labels[None])[0]
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1]).to(logits)
    return Innovation(
        nis=float(observed),
        degrees_of_freedom=len(labels) * (logits.shape[1] - 1),
        nis_rank=_rank(observed, reference, generator),
        transforms=_label_transforms(log_probabilities, labels, generator),
        pulled=pull_back(design, one_hot - probabilities).flatten(),
    )


def gaussian_innovation(
    logits: Tensor, gram: Gram, design: Tensor, values: Tensor, noise_variance: float
) -> Innovation:
    """The innovation of a batch of `values` (b, C) ~ N(logits, `noise_variance`): exact, no draws.

    The statistic is chi-square with b C degrees of freedom; its rank and the transforms (of the whitened
    innovations, each standard normal) follow in closed form.
    """
    spread = dense(gram, logits)
    spread.diagonal().add_(noise_variance)
    factor = torch.linalg.cholesky(spread)
    excess = values - logits
    white = torch.linalg.solve_triangular(factor, excess.T.reshape(-1, 1), upper=False)[:, 0]
    nis, freedom = float(white.square().sum()), len(white)
    return Innovation(
        nis=nis,
        degrees_of_freedom=freedom,
        nis_rank=min(int(chi2.cdf(nis, freedom) * (DRAWS + 1)), DRAWS),
        transforms=norm.cdf(white.cpu().numpy()),
        pulled=pull_back(design, excess).flatten(),
    )


def dense(gram: Gram, logits: Tensor) -> Tensor:
    """The covariance (C b, C b) of a batch's logits (b, C), classes outermost, whatever the Gram's structure.

    Column by column through the Gram's own product: slow, and the same for every covariance family.
    """
    rows, classes = logits.shape
    units = torch.eye(rows * classes, dtype=logits.dtype, device=logits.device)
    columns = [gram.times(unit.reshape(classes, rows).T).T.reshape(-1) for unit in units]
    matrix = torch.stack(columns, dim=1)
    return (matrix + matrix.T) / 2


def _logit_draws(logits: Tensor, gram: Gram, generator: torch.Generator) -> Tensor:
    """Joint draws (S, b, C) of the batch's logits."""
    rows, classes = logits.shape
    noise = torch.randn(LOGIT_DRAWS, rows * classes, generator=generator, dtype=logits.dtype)
    flat = noise @ root_of(dense(gram, logits)[None])[0].mT
    return logits + flat.reshape(-1, classes, rows).mT


def _pearson(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Σ over rows of 1/p_y − 1, (S,), for labels (S, b) under probabilities (b, C)."""
    rows = torch.arange(len(probabilities))
    return (1 / probabilities[rows, labels] - 1).sum(-1)


def _sampled(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One label (S, b) of each row from probabilities (S, b, C)."""
    flat = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator)
    return flat.reshape(probabilities.shape[:2])


def _rank(observed: Tensor, reference: Tensor, generator: torch.Generator) -> int:
    """Rank among the reference; ties, of which labels make many, are broken at random."""
    close = (reference - observed).abs() <= 1e-9 * observed.abs()
    below = int(((reference < observed) & ~close).sum())
    return below + int(torch.randint(0, int(close.sum()) + 1, (), generator=generator))


def _label_transforms(log_probabilities: Tensor, labels: Tensor, generator: torch.Generator) -> np.ndarray:
    """F(y − 1) + V p(y) of each row given the rows before it, (b,), from draws (S, b, C) of log p."""
    weights = log_probabilities.new_zeros(len(log_probabilities))
    transforms = []
    for row, label in enumerate(labels.tolist()):
        predicted = weights.softmax(0) @ log_probabilities[:, row].exp()
        share = float(torch.rand((), generator=generator))
        transforms.append(float(predicted[:label].sum() + share * predicted[label]))
        weights = weights + log_probabilities[:, row, label]
    return np.clip(np.array(transforms), 0.0, 1.0)


def _whiteness(streams: Sequence[Sequence[Innovation]]) -> float:
    """Σ ⟨g_k, g_{k−1}⟩ in standard errors, g the innovations in the weights.

    Given the past each term has mean zero for an exact filter, so the sum is a martingale, and normal with
    the sum of squares as its variance.
    """
    products = np.array(
        [float(now.pulled @ before.pulled) for stream in streams for before, now in pairwise(stream)]
    )
    scale = np.sqrt(np.square(products).sum())
    return float(products.sum() / scale) if scale > 0 else 0.0
