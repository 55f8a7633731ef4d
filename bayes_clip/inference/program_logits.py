"""What is known of the class logits of new inputs, given what is known of a program's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.program import BYTES_PER_CHUNK, Program

Weights = Belief | Point | Draws | LowRank


@dataclass(frozen=True)
class ProgramLogits:
    """Class logits of inputs (N, F) under uncertain weights.

    Exact where the logits are linear in the weights, and for points and draws. A Gaussian over the weights of
    any other program is seen through the logits linearised at its mean (the "linearised Laplace" predictive).
    """

    program: Program
    weights: Weights

    def logit_moments(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C)."""
        observation, weights = self.program.observation, self.weights
        if self.program.is_head:
            mean, variance = weights.logit_moments(self.program.design(inputs))
        elif isinstance(weights, Draws):
            samples = torch.stack([self.program.logits(draw, inputs) for draw in weights.samples])
            mean, variance = samples.mean(0), samples.var(0, correction=0)
        elif isinstance(weights, Point):
            mean = self.program.logits(weights.mean, inputs)
            variance = torch.zeros_like(mean)
        else:
            parts = [self._linearised_moments(rows) for rows in inputs.split(self._rows)]
            mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return observation.class_logits(mean), observation.class_variance(variance)

    def sample_logits(self, inputs: Tensor, noise: Tensor) -> Tensor:
        """Draws (S, N, C) from standard normal `noise` (S, N, C)."""
        return self.program.observation.class_logits(
            self._samples(inputs, noise[..., : self.program.outputs])
        )

    def _samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        weights = self.weights
        if self.program.is_head:
            return weights.sample_logits(self.program.design(inputs), noise)
        if isinstance(weights, Draws):
            return torch.stack([self.program.logits(draw, inputs) for draw in weights.spread(len(noise))])
        if isinstance(weights, Point):
            return self.program.logits(weights.mean, inputs).expand(noise.shape)
        parts = zip(inputs.split(self._rows), noise.split(self._rows, dim=1), strict=True)
        return torch.cat([self._linearised_samples(*part) for part in parts], dim=1)

    @property
    def _rows(self) -> int:
        """Rows whose Jacobians are made at once."""
        mean = self.program.prior_mean
        return max(1, BYTES_PER_CHUNK // (self.program.outputs * mean.numel() * mean.element_size()))

    def _linearised_moments(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        design, offset = self.program.linearise(inputs, self.weights.mean)
        mean, variance = self.weights.logit_moments(design)
        return (mean if offset is None else mean + offset), variance

    def _linearised_samples(self, inputs: Tensor, noise: Tensor) -> Tensor:
        design, offset = self.program.linearise(inputs, self.weights.mean)
        samples = self.weights.sample_logits(design, noise)
        return samples if offset is None else samples + offset
