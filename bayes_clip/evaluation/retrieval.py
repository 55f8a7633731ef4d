"""Image-text retrieval under uncertain weights: recall with ties, and how sure a ranking is of itself.

Queries Q are images and the gallery G texts, or the other way round. A program that adapts the image side has
weights that no text owns, so a posterior fitted on the texts of the labelled pairs ranks any other gallery:
`over_gallery`. What a user can check is `stated`, the probability that the match is among the first k
returned, against `hits`, whether it was. What the truth is needed for is `chance`, the posterior probability
that the match ranks among the first k, whose mean is the expected recall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, softmax
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.evaluation.base_to_new import has_weights_of_classes
from bayes_clip.evaluation.metrics import Array
from bayes_clip.model import FunctionModel
from bayes_clip.posterior import Posterior
from bayes_clip.randomness import own_random_numbers

DRAWS = 128
LEVEL = 0.9  # of rank intervals
Mask = NDArray[np.bool_]


def hit_chances(similarities: ArrayLike, relevant: ArrayLike, k: int) -> Array:
    """Chance (Q,) that some relevant item is among the first k, with ties broken at random.

    `similarities` and `relevant` are (Q, G). Exact: of t items that tie with the best relevant one, m of them
    relevant, j places are left, and none of the m gets one with chance C(t − m, j) / C(t, j). Captions that
    an encoder cannot tell apart tie, and a sort would give all to whichever comes first in the file.
    """
    above, tied, matches = _standing(*_checked(similarities, relevant))
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    places = np.clip(k - above, 0, tied)
    fits = tied - matches >= places
    none = _log_choose(np.where(fits, tied - matches, tied), places) - _log_choose(tied, places)
    return np.where(fits, -np.expm1(none), 1.0)


def recall_at(similarities: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """Share of the queries that have a relevant item among the first k; ties as in `hit_chances`."""
    return float(hit_chances(similarities, relevant, k).mean())


def first_ranks(similarities: ArrayLike, relevant: ArrayLike) -> Array:
    """Expected rank (Q,) of the best relevant item, 1 is first, with ties broken at random."""
    above, tied, matches = _standing(*_checked(similarities, relevant))
    return np.asarray(above + (tied + 1) / (matches + 1))


@dataclass(frozen=True)
class Ranking:
    """What a posterior says of Q queries over a gallery of G, and what is true.

    The gallery is ranked by `probabilities`, the average over the weights of the softmax over the gallery:
    for images over texts that is the program's own Categorical; for texts over images the other half of
    CLIP's training loss, with the same logit scale.
    """

    probabilities: Array  # (Q, G)
    relevant: Mask  # (Q, G)
    chance: dict[int, Array]  # k -> (Q,) posterior probability that a match ranks among the first k
    rank: Array  # (Q,) median of the match's rank over the weights
    rank_lower: Array  # (Q,) central interval of LEVEL
    rank_upper: Array  # (Q,)

    def hits(self, k: int) -> Array:
        """Whether (Q,) a match is among the first k returned; a fraction where it ties for a place."""
        return hit_chances(self.probabilities, self.relevant, k)

    def recall(self, k: int) -> float:
        """Share of the queries whose match is among the first k returned."""
        return float(self.hits(k).mean())

    def expected_recall(self, k: int) -> float:
        """Recall of weights drawn from the posterior, on average; k is one of `chance`."""
        return float(self.chance[k].mean())

    def stated(self, k: int) -> Array:
        """Probability (Q,) that it gives to a match being among the first k returned; needs no truth."""
        return np.minimum(-np.sort(-self.probabilities, axis=1)[:, :k].sum(axis=1), 1.0)

    def nll(self) -> float:
        """Mean negative log probability of the matches together, in nats."""
        own = (self.probabilities * self.relevant).sum(axis=1)
        return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def ranking(draws: Iterable[ArrayLike], relevant: ArrayLike, tops: Sequence[int] = (1, 5)) -> Ranking:
    """Sum up draws of the similarities (Q, G), in units of logits; one draw is a point estimate.

    Every query needs a relevant item.
    """
    total, ranks, count = np.zeros(np.shape(relevant)), [], 0
    chances = {k: np.zeros(len(total)) for k in tops}
    for similarities in draws:
        values, truth = _checked(similarities, relevant)
        total += softmax(values, axis=1)
        ranks.append(first_ranks(values, truth))
        for k in tops:
            chances[k] += hit_chances(values, truth, k)
        count += 1
    if not count:
        raise ValueError("ranking needs at least one draw")
    tail = (1 - LEVEL) / 2
    lower, middle, upper = np.quantile(ranks, [tail, 0.5, 1 - tail], axis=0)
    chances = {k: chance / count for k, chance in chances.items()}
    return Ranking(total / count, np.asarray(relevant, dtype=bool), chances, middle, lower, upper)


def over_gallery(posterior: Posterior, text_features: Tensor, texts: Sequence[str]) -> Posterior:
    """The same weights over another gallery of texts, unit features (G, D): its classes are these texts.

    Raises:
        UserError: a program with weights or labelled rows of classes (a linear probe, a cache), a plain
            function, or fewer than two texts.
    """
    model, weights = posterior.program, posterior.weights
    if isinstance(model, FunctionModel):
        raise UserError(f"{model.name}: a plain function knows no gallery; write a subclass of AdapterModel")
    if len(texts) < 2:
        raise UserError(f"a gallery of {len(texts)} texts: ranking needs at least two; add texts")
    if has_weights_of_classes(model):
        raise UserError(
            f"{type(model).__name__}: has weights for every class, and other texts have none; retrieval "
            "needs a program that adapts the image side or what all texts share"
        )
    gallery = torch.nn.functional.normalize(text_features.to(model.text_features), dim=-1)
    context = replace(model.context, text_features=gallery, class_names=tuple(texts), has_text=True)
    return Posterior(model.on_classes(context), weights, posterior.source)


def similarity_draws(
    posterior: Posterior, inputs: Tensor, draws: int = DRAWS, seed: int = 0, covariance_scale: float = 1.0
) -> Iterator[NDArray[np.float64]]:
    """Logits (N, C) of inputs (N, F) under weights drawn from the posterior, one set for all rows.

    Inputs come as the program takes them. Draws go through the program itself, not through its linearisation.
    `covariance_scale` multiplies the posterior's covariance; at 0, and for a point estimate, there is one
    draw, the mean.
    """
    model, program = posterior.program, posterior.logits.program
    mean = posterior.weights.mean.reshape(-1)
    flat = mean[None]
    if covariance_scale > 0 and not posterior.is_point:
        with own_random_numbers(mean.device, seed):
            flat = posterior.get_posterior().sample(torch.Size([draws]))
        flat = mean + covariance_scale**0.5 * (flat - mean)
    for weights in flat:
        values = {site.name: site.of(weights) for site in program.sites}
        with torch.no_grad():
            yield model.logits(values, inputs.to(mean)).double().cpu().numpy()


def _standing(values: Array, relevant: Mask) -> tuple[NDArray[np.int64], ...]:
    """Of the best relevant item: items above it, items that tie with it (itself too), relevant ones there."""
    best = np.where(relevant, values, -np.inf).max(axis=1, keepdims=True)
    tie = values == best
    return (values > best).sum(axis=1), tie.sum(axis=1), (tie & relevant).sum(axis=1)


def _log_choose(total: ArrayLike, picked: ArrayLike) -> Array:
    n, j = np.asarray(total, dtype=np.float64), np.asarray(picked, dtype=np.float64)
    return np.asarray(gammaln(n + 1) - gammaln(j + 1) - gammaln(n - j + 1))


def _checked(similarities: ArrayLike, relevant: ArrayLike) -> tuple[Array, Mask]:
    """Both as arrays of one shape (Q, G), or a ValueError that names what does not fit."""
    values, truth = np.asarray(similarities, dtype=np.float64), np.asarray(relevant, dtype=bool)
    if values.ndim != 2 or values.shape != truth.shape or not len(values):
        raise ValueError(f"similarities and relevant must be (Q, G); got {values.shape}, {truth.shape}")
    if np.isnan(values).any():
        raise ValueError("similarities must not be NaN")
    if not truth.any(axis=1).all():
        raise ValueError(f"query {int((~truth.any(axis=1)).argmax())} has no relevant item")
    return values, truth
