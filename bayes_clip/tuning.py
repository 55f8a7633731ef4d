"""Prior variance and covariance scale from the support set alone: balanced folds and a weak hyper-prior.

No validation images are needed: the few-shot user has none. What is minimised is the negative log likelihood
of left-out folds under the predictive that will be used, plus a log-normal hyper-prior on s² v, the prior
variance of a logit, which is what transfers between backbones. With one shot there is nothing to leave out
and the hyper-prior alone decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.inference.folds import FoldMoments
from bayes_clip.predictive import closed_form

# The covariance scales tried for the closed-form predictive; 0 is plug-in.
COVARIANCE_SCALES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
STEP = 10**0.5  # between prior variances
LOWEST, HIGHEST = 0.3, 1e6  # prior variance of a logit
MOST_LOOKS = 5
HYPER_WIDTH = math.log(10)  # standard deviation of log s² v
# Where the hyper-prior is centred. Averaging rules want a narrower prior than the mode does.
CENTRES = {
    "map": 100.0,
    "laplace": 100.0,
    "iterated": 100.0,
    "expected": 30.0,
    "moment_matched": 10.0,
    "plain": 10.0,
    "kalman_clip": 100.0,  # nothing better is known
    "natural_gradient": 10.0,
    "vi": 10.0,
}
WITHOUT_TEXT = 100.0  # a prior mean of zero wants a prior this much wider


@dataclass(frozen=True)
class Candidate:
    """One prior variance tried: its best covariance scale, and the folds' mean NLL there (nats)."""

    prior_variance: float
    covariance_scale: float
    fold_nll: float
    objective: float  # fold_nll plus the hyper-prior per row


@dataclass(frozen=True)
class Tuned:
    """The choice, and everything that was tried (ascending prior variance; empty at one shot)."""

    prior_variance: float
    covariance_scale: float
    profile: tuple[Candidate, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Tuned(prior_variance={self.prior_variance:.3g}, covariance_scale={self.covariance_scale:g}, "
            f"{len(self.profile)} tried)"
        )


def default_variance(kind: str, logit_variance: float, has_text: bool) -> float:
    """The hyper-prior's centre for an engine or rule, as a prior variance of weights.

    `logit_variance` is the prior variance of a logit at unit prior variance: s² for a linear probe.
    """
    return CENTRES[kind] * (1.0 if has_text else WITHOUT_TEXT) / logit_variance


def choose(
    held_out: FoldMoments,
    labels: Tensor,
    centre: float,
    logit_variance: float,
    *,
    scales: bool = True,
    widest: float = math.inf,
) -> Tuned:
    """Walk over half-decades from `centre` to the lowest objective: three looks, or one more for every step.

    Where several looks have been taken in one direction the walk ends after MOST_LOOKS. Nothing finer than
    half-decades is tried: what it would gain is less than folds can tell (analysis/prior_variance_regret.py).
    `scales`: also choose the covariance scale (for engines with a covariance). `widest`: the largest prior
    variance that the program bears.
    """
    tried: dict[int, Candidate] = {}

    def look(step: int) -> Candidate:
        if step not in tried:
            tried[step] = _candidate(held_out, labels, centre, centre * STEP**step, scales)
        return tried[step]

    best = 0
    look(best)
    for direction in (1, -1):
        while LOWEST <= centre * STEP ** (best + direction) * logit_variance <= HIGHEST:
            if centre * STEP ** (best + direction) > widest:
                break
            if len(tried) >= MOST_LOOKS or look(best + direction).objective >= look(best).objective:
                break
            best += direction
    profile = tuple(tried[step] for step in sorted(tried))
    chosen = min(profile, key=lambda candidate: candidate.objective)
    return Tuned(chosen.prior_variance, chosen.covariance_scale, profile)


def choose_scale(held_out: FoldMoments, labels: Tensor, prior_variance: float) -> Tuned:
    """The covariance scale alone, at a prior variance that is given."""
    candidate = _candidate(held_out, labels, prior_variance, prior_variance, True)
    return Tuned(prior_variance, candidate.covariance_scale, (candidate,))


def _candidate(
    held_out: FoldMoments, labels: Tensor, centre: float, prior_variance: float, scales: bool
) -> Candidate:
    mean, variance = held_out(prior_variance)
    by_scale = {
        scale: float(_fold_nll(mean, scale * variance, labels))
        for scale in (COVARIANCE_SCALES if scales else COVARIANCE_SCALES[:1])
    }
    scale = min(by_scale, key=lambda candidate: by_scale[candidate])
    hyper = (math.log(prior_variance / centre) / HYPER_WIDTH) ** 2 / 2
    return Candidate(prior_variance, scale, by_scale[scale], by_scale[scale] + hyper / len(labels))


def _fold_nll(mean: Tensor, variance: Tensor, labels: Tensor) -> Tensor:
    probabilities = closed_form(mean, variance).gather(1, labels[:, None])
    return -probabilities.clamp_min(torch.finfo(mean.dtype).tiny).log().mean()
