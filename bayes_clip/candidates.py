"""Rows whose labels may be asked for, as a belief sees them before and after some of these labels.

The covariance of a Gaussian update depends on the site precision and not on the label, so it can be had
before the label is. Everything here looks at the belief with its covariance times `SPREAD`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief, ClassBlock
from bayes_clip.gaussian.gram import BlockGram, Gram
from bayes_clip.gaussian.logits import PredictedLogits, SeparateLogits
from bayes_clip.inference.program_logits import Seen
from bayes_clip.observation import Observation, fixed_noise
from bayes_clip.posterior import Posterior

SPREAD = 0.1  # of the covariance, that suggestions go by
CURVATURE_DRAWS = 128


class Candidates(Protocol):
    """Rows whose labels may be asked for, as a belief sees them."""

    def logits(self) -> PredictedLogits:
        """Class logits of the n rows."""
        ...

    def given(self, index: int) -> Candidates:
        """The same rows as the belief sees them once row `index` has some label."""
        ...


def is_block(posterior: Posterior) -> bool:
    """Whether it is a linear head with one covariance per class, for which picks have a shorter way."""
    return isinstance(posterior.weights, ClassBlock) and posterior.logits.program.is_head


def candidates_of(posterior: Posterior, inputs: Tensor) -> Candidates:
    """Inputs (n, F) as the posterior sees them."""
    program, belief = posterior.logits.program, posterior.weights
    if program.is_head:
        design, offset = program.design(inputs), None
    else:
        design, offset = program.linearise(inputs, belief.mean)
    if isinstance(belief, ClassBlock) and is_block(posterior):
        projection = belief.project(design)
        return BlockCandidates(projection.logits, projection.gram.blocks, program.observation)  # type: ignore[union-attr]
    return BeliefCandidates(belief, design, offset, program.observation)  # type: ignore[arg-type]


@dataclass(frozen=True)
class BeliefCandidates:
    """Any belief: each pick is an update of it, and the rows are seen through it anew."""

    belief: Belief
    design: Tensor  # (n, D) or (n, K, P)
    offset: Tensor | None  # (n, K)
    observation: Observation

    def logits(self) -> PredictedLogits:
        """Class logits of the n rows."""
        return Seen(self.belief.predicted_logits(self.design), self.observation, self.offset)

    def given(self, index: int) -> BeliefCandidates:
        """After one update of the covariance."""
        projection = self.belief.project(self.design[index : index + 1])
        logits = projection.logits if self.offset is None else projection.logits + self.offset[index]
        downdate = downdate_of(projection.gram.double(), logits.double(), self.observation)
        still = torch.zeros_like(projection.logits)
        return replace(self, belief=self.belief.condition(projection, still, downdate.to(self.design)))


@dataclass(frozen=True)
class BlockCandidates:
    """Class blocks: the same updates in the rows' own logits, without a look at the covariance.

    G_c ← G_c − G_c[:, i] B_c G_c[i, :] is what projecting the conditioned belief gives: n² C numbers a pick.
    """

    mean: Tensor  # (n, C)
    blocks: Tensor  # (C, n, n)
    observation: Observation

    def logits(self) -> PredictedLogits:
        """Class logits of the n rows."""
        variance = self.blocks.diagonal(dim1=1, dim2=2).mT.clamp_min(0)
        return Seen(SeparateLogits(self.mean, variance), self.observation)

    def given(self, index: int) -> BlockCandidates:
        """After one update of the covariance."""
        one = slice(index, index + 1)
        gram = BlockGram(self.blocks[:, one, one].double())
        downdate = downdate_of(gram, self.mean[one].double(), self.observation).to(self.blocks)
        left = self.blocks[:, :, one] @ downdate
        return replace(self, blocks=torch.baddbmm(self.blocks, left, self.blocks[:, one], alpha=-1))


@dataclass(frozen=True)
class Narrowed:
    """Predicted logits of the belief with its covariance times `SPREAD`."""

    inside: PredictedLogits

    @property
    def mean(self) -> Tensor:
        """(n, C)."""
        return self.inside.mean

    @property
    def variance(self) -> Tensor:
        """(n, C)."""
        return SPREAD * self.inside.variance

    def streamed(self, keys: Tensor, draws: int, numbers: int) -> Iterator[Tensor]:
        """Blocks (s, n, C) of draws, nearer to their mean."""
        mean = self.mean
        for block in self.inside.streamed(keys, draws, numbers):
            yield torch.lerp(mean, block, SPREAD**0.5)


def downdate_of(gram: Gram, logits: Tensor, observation: Observation) -> Tensor:
    """What one row with any label takes from the belief, for `Belief.condition`; float64.

    Its site precision W is the curvature expected over N(`logits`, SPREAD x covariance). What is looked at is
    SPREAD P, so P itself takes SPREAD W: (SPREAD P)⁻¹ + W = (P⁻¹ + SPREAD W) / SPREAD.
    """
    noise = fixed_noise(CURVATURE_DRAWS, logits)
    _, curvature = gram.averages(observation, logits, SPREAD**0.5 * gram.deviation(), noise)
    return gram.site_downdate(SPREAD * gram.admissible(curvature))
