"""What is known of the class logits of new inputs, given what is known of a program's weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.program import Program

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
            design, offset = self.program.linearise(inputs, weights.mean)
            mean, variance = weights.logit_moments(design)
            mean = mean if offset is None else mean + offset
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
        design, offset = self.program.linearise(inputs, weights.mean)
        samples = weights.sample_logits(design, noise)
        return samples if offset is None else samples + offset
