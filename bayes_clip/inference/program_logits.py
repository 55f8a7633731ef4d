"""What is known of the class logits of new inputs, given what is known of a program's weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief
from bayes_clip.gaussian.logits import ChainLogits, PredictedLogits, SeparateLogits
from bayes_clip.gaussian.point import Draws, LowRank, Point, sample_moments
from bayes_clip.inference.program import Program
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within
from bayes_clip.observation import Observation

Weights = Belief | Point | Draws | LowRank


@dataclass(frozen=True)
class ProgramLogits:
    """Class logits of inputs (N, F) under uncertain weights.

    Exact where the logits are linear in the weights, and for points and draws. A Gaussian over the weights of
    any other program is seen through the logits linearised at its mean (the "linearised Laplace" predictive).
    """

    program: Program
    weights: Weights

    @property
    def row_numbers(self) -> int:
        """Numbers that predicting one row makes on the way, its moments and design among them."""
        outputs, mean = self.program.outputs, self.program.prior_mean
        if self.program.is_head:
            numbers = 2 * mean.shape[1] + self.weights.row_numbers
        elif isinstance(self.weights, Point | Draws):
            numbers = 2 * outputs
        else:  # the Jacobian, what a covariance makes of it, and the row's own covariance and its root
            numbers = 3 * outputs * mean.numel() + 6 * outputs**2
        return numbers + 4 * outputs

    def logit_moments(self, inputs: Tensor, budget: int = WORKING_BYTES) -> tuple[Tensor, Tensor]:
        """Mean and variance (N, C), by as many rows at once as `budget` bytes hold."""
        observation = self.program.observation

        def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
            mean, variance = self._moments(rows, budget)
            return observation.class_logits(mean), observation.class_variance(variance)

        return by_rows(moments, inputs, rows_within(budget, self.row_numbers * inputs.element_size()))

    def predicted_logits(self, inputs: Tensor) -> PredictedLogits:
        """Moments and joint draws of the class logits of n inputs, all at once; mind `row_numbers`."""
        observation = self.program.observation
        if self.program.is_head:
            return Seen(self.weights.predicted_logits(self.program.design(inputs)), observation)
        if isinstance(self.weights, Draws | Point):
            return Seen(self._through_program(inputs), observation)
        design, offset = self.program.linearise(inputs, self.weights.mean)
        return Seen(self.weights.predicted_logits(design), observation, offset)

    def _moments(self, inputs: Tensor, budget: int) -> tuple[Tensor, Tensor]:
        """Mean and variance (n, K) of the program's logits."""
        if self.program.is_head:
            return self.weights.logit_moments(self.program.design(inputs), budget)
        if isinstance(self.weights, Draws | Point):
            predicted = self._through_program(inputs)
            return predicted.mean, predicted.variance
        design, offset = self.program.linearise(inputs, self.weights.mean)
        mean, variance = self.weights.logit_moments(design, budget)
        return (mean if offset is None else mean + offset), variance

    def _through_program(self, inputs: Tensor) -> ChainLogits | SeparateLogits:
        """Points and draws through the program itself, one set of weights after another."""
        weights, logits = self.weights, self.program.logits
        if isinstance(weights, Draws):
            samples = weights.samples
            parts = (logits(draw, inputs)[None] for draw in samples)
            moments = sample_moments(parts, logits(weights.mean, inputs), len(samples))
            return ChainLogits(*moments, len(samples), lambda index: logits(samples[index], inputs))
        mean = logits(weights.mean, inputs)
        return SeparateLogits(mean, torch.zeros_like(mean))


@dataclass(frozen=True)
class Seen:
    """Predicted logits of a program as an observation sees them: logits of the classes."""

    inside: PredictedLogits
    observation: Observation
    offset: Tensor | None = None  # (n, K) of a linearised program

    @property
    def mean(self) -> Tensor:
        """(n, C)."""
        return self.observation.class_logits(self._moved(self.inside.mean))

    @property
    def variance(self) -> Tensor:
        """(n, C)."""
        return self.observation.class_variance(self.inside.variance)

    def streamed(self, keys: Tensor, draws: int, numbers: int) -> Iterator[Tensor]:
        """Blocks (s, n, C) of draws; see `PredictedLogits`."""
        for block in self.inside.streamed(keys, draws, numbers):
            yield self.observation.class_logits(self._moved(block))

    def _moved(self, logits: Tensor) -> Tensor:
        return logits if self.offset is None else logits + self.offset
