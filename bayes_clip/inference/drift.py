"""How fast do the weights drift? Process noise chosen by the filter's own one-step predictions.

Every batch is scored before it is learned, so the sum of these scores (prequential, Dawid 1984) is an honest
measure of a process noise on the very stream that is filtered: no label is predicted with its own help. The
score need not have one peak, so a coarse logarithmic grid finds the neighbourhood (the static model, noise 0,
is on it) and golden section refines it. Beside it stands the sum of the rule's Laplace log evidences, which
is another number: it scores a batch jointly, and what is learned within the batch counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bayes_clip.inference.kalman import StepInfo

GRID = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # multiples of the prior covariance a step
TOLERANCE = 0.2  # decades: how narrow golden section makes its bracket
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class TriedNoise:
    """One process noise, and what a pass of the filter with it scored; nats, summed over the stream."""

    process_noise: float
    prequential_score: float  # Σ log p(y | everything before its batch), each row on its own
    log_evidence: float  # Σ Laplace log normaliser of each batch as a whole


@dataclass(frozen=True)
class Drift:
    """The process noise with the best prequential score, and everything that was tried (ascending)."""

    process_noise: float
    profile: tuple[TriedNoise, ...]

    @property
    def by_evidence(self) -> float:
        """What the log evidence would have chosen, for comparison."""
        return max(self.profile, key=lambda tried: _finite(tried.log_evidence)).process_noise

    def __repr__(self) -> str:
        return f"Drift(process_noise={self.process_noise:.3g}, {len(self.profile)} tried)"


def estimate_process_noise(
    filtered: Callable[[float], Sequence[StepInfo]], grid: Sequence[float] = GRID
) -> Drift:
    """The process noise whose filter predicts the stream best.

    `filtered` runs the filter once over the whole stream with a given process noise, a multiple of the prior
    covariance, and returns its infos: ``lambda q: stream.run(state, data, rule, StateSpace(decay, q))[1]``.
    It decides what the number stands for: the noise of all sites, of one, or (see `forgetting`) a decay.
    About a dozen passes; `grid` ascends from 0. Ties go to the smaller noise. A single batch says nothing
    about drift: 0.
    """
    tried: dict[float, TriedNoise] = {}

    def score(noise: float) -> float:
        if noise not in tried:
            infos = filtered(noise)
            tried[noise] = TriedNoise(
                noise,
                sum(float(info.prequential_score) for info in infos),
                sum(float(info.change.log_evidence) for info in infos),
            )
            steps.append(len(infos))
        return _finite(tried[noise].prequential_score)

    steps: list[int] = []
    score(grid[0])
    if steps[0] > 1:
        best = max(grid, key=score)  # the first of equals
        if best > 0:
            positive = [noise for noise in grid if noise > 0]
            _golden_section(lambda exponent: score(10**exponent), *_bracket(best, positive))
    profile = tuple(tried[noise] for noise in sorted(tried))
    return Drift(max(profile, key=lambda one: _finite(one.prequential_score)).process_noise, profile)


def forgetting(noise: float) -> float:
    """The decay γ = 1/√(1 + q) in (0, 1] of a noise-to-signal ratio q: a decay on the same logarithmic axis.

    Its stationary process noise 1 − γ² is q/(1 + q). ``lambda q: stream.run(..., StateSpace(forgetting(q)))``
    lets `estimate_process_noise` choose a decay.
    """
    return 1 / math.sqrt(1 + noise)


def _bracket(best: float, grid: Sequence[float]) -> tuple[float, float]:
    """Decadic exponents of the neighbours of `best` in an ascending grid; beyond its ends, mirrored."""
    exponents = [math.log10(noise) for noise in grid]
    place = grid.index(best)
    middle = exponents[place]
    below = middle - exponents[place - 1] if place > 0 else None
    above = exponents[place + 1] - middle if place + 1 < len(grid) else None
    step = below or above or 1.0
    return middle - (below or step), middle + (above or step)


def _golden_section(function: Callable[[float], float], low: float, high: float) -> None:
    """Evaluate `function` ever closer to its maximum, until `low` and `high` are TOLERANCE apart."""
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > TOLERANCE:
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = function(right)


def _finite(score: float) -> float:
    """The score, or minus infinity where a filter broke down."""
    return score if math.isfinite(score) else -math.inf
