"""The class-block belief with its classes shared out over processes.

Only the covariance is split, n of C blocks (D, D) for each process: it is all but the whole memory, and its
visits are all but the whole work. The mean (C, D) and the rows' logits (b, C) are on every process, so the
update rules run unchanged on each of them, and ask a `ShardedGram` for what takes the blocks. What is told
between processes for a batch is a few (b, C) and (b, b) tensors a step of the rule, and the mean's step
(C, D); never a covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.class_block import ClassBlock
from bayes_clip.gaussian.gram import BlockGram
from bayes_clip.memory import WORKING_BYTES
from bayes_clip.observation import Observation
from bayes_clip.shard import Shard, joined


@dataclass(frozen=True, kw_only=True)
class ShardedGram(BlockGram):
    """Gram blocks (n, b, b) of this process's classes. Takes and gives rows of all classes, (b, C).

    Every process must ask the same in the same order; what is a downdate or a site matrix stays where its
    classes are.
    """

    shard: Shard

    def averages(
        self, observation: Observation, logits: Tensor, deviation: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As one process does it, with the rows shared out: a softmax needs all classes of a row."""
        rows = Shard(len(logits), self.shard.rank, self.shard.processes)
        mine = rows.own
        parts = logits.new_empty(0, 2, logits.shape[1])
        if mine.start < mine.stop:
            part = super().averages(observation, logits[mine], deviation[mine], noise[:, mine])
            parts = torch.stack(part, 1)
        mean, own = joined(parts, rows.sizes).unbind(1)
        return mean.contiguous(), own.contiguous()

    def _own(self, rows: Tensor) -> Tensor:
        return rows[:, self.shard.own].T.contiguous()

    def _all(self, classes: Tensor) -> Tensor:
        return self.shard.everything(classes).T

    def _total(self, of_own: Tensor) -> Tensor:
        return self.shard.total(of_own)


@dataclass(frozen=True, kw_only=True)
class ShardedClassBlock(ClassBlock):
    """A `ClassBlock` whose `covariance` (n, D, D) is of the classes here; the `mean` (C, D) is of all."""

    shard: Shard

    def diffuse(self, prior_mean: Tensor, decay: float | Tensor, process_noise: Tensor) -> ShardedClassBlock:
        """One time step of the state space; `process_noise` and a tensor `decay` are (C, D)."""
        own = self.shard.own
        kept = decay[own] if isinstance(decay, Tensor) else decay
        here = ClassBlock(self.mean[own], self.covariance)
        covariance = here.diffuse(prior_mean[own], kept, process_noise[own]).covariance
        return replace(self, mean=prior_mean + decay * (self.mean - prior_mean), covariance=covariance)

    def logit_moments(self, design: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C) of the logits of `design` (N, D); every process must ask."""
        variance = super().logit_moments(design, budget)[1]
        return design @ self.mean.mT, self.shard.everything(variance.mT).mT.contiguous()

    def _step(self, cross: Tensor, dual: Tensor) -> Tensor:
        return self.shard.everything(super()._step(cross, dual[:, self.shard.own]))

    def _projected(self, design: Tensor, cross: Tensor) -> Projection:
        seen = super()._projected(design, cross)
        assert isinstance(seen.gram, BlockGram)
        return replace(seen, gram=ShardedGram(seen.gram.blocks, shard=self.shard))


def sharded_prior(mean: Tensor, variance: Tensor, shard: Shard) -> ShardedClassBlock:
    """Independent weights with the given mean and variance, both (C, D)."""
    return ShardedClassBlock(mean, torch.diag_embed(variance[shard.own]), shard=shard)
