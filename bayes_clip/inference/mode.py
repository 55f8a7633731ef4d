"""The posterior mode of a linear softmax head: truncated Newton in the prior's own scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.observation import SOFTMAX

NEWTON_STEPS = 100
CONJUGATE_STEPS = 250
DECREMENT_TOLERANCE = 1e-16


@dataclass(frozen=True)
class ModeProblem:
    """Softmax regression on `design` (N, D) with prior N(`mean`, diag `variance`) on weights (C, D).

    Solved in float64. Where the prior variance is the same for all features of a class, deviations from the
    prior mean lie in the span of the design, and its principal axes (at most min(N, D)) make the
    preconditioner diagonal.
    """

    design: Tensor  # (N, r)
    labels: Tensor  # (N,)
    prior_logits: Tensor  # (N, C)
    mean: Tensor  # (C, D)
    variance: Tensor  # (C, r) or (C, 1)
    axes: Tensor | None  # (D, r); None: no rotation


def mode_problem(design: Tensor, labels: Tensor, mean: Tensor, variance: Tensor) -> ModeProblem:
    """Prepare the problem; `mean` and `variance` are (C, D)."""
    design, mean, variance = design.double(), mean.double(), variance.double()
    prior_logits = design @ mean.mT
    if not (variance == variance[:, :1]).all():
        return ModeProblem(design, labels, prior_logits, mean, variance, None)
    if len(design) < design.shape[1]:
        values, vectors = torch.linalg.eigh(design @ design.mT)
        keep = values > values.max() * 1e-14
        axes = design.mT @ (vectors[:, keep] / values[keep].sqrt())
    else:
        axes = torch.linalg.eigh(design.mT @ design).eigenvectors
    return ModeProblem(design @ axes, labels, prior_logits, mean, variance[:, :1], axes)


def rescaled(problem: ModeProblem, variance: Tensor) -> ModeProblem:
    """The same problem with another prior `variance` (C, D), of the same structure; the axes are reused."""
    variance = variance.to(problem.variance)
    return replace(problem, variance=variance if problem.axes is None else variance[:, :1])


def find_mode(
    problem: ModeProblem, start: Tensor | None = None, tolerance: float = DECREMENT_TOLERANCE
) -> Tensor:
    """Deviations of the mode from the prior mean, (C, r), to a Newton decrement of `tolerance` nats.

    `start` (C, r) warm-starts. The objective is strictly concave, so there is one mode.
    """
    labels = SOFTMAX.target(problem.labels, problem.prior_logits)
    deviation = start
    if deviation is None:
        deviation = problem.mean.new_zeros(len(problem.mean), problem.design.shape[1])
    squares = problem.design.square()
    logits = logits_of(problem, deviation)
    value = _objective(problem, deviation, logits)
    for _ in range(NEWTON_STEPS):
        probabilities = logits.softmax(-1)
        gradient = (labels - probabilities).mT @ problem.design - deviation / problem.variance
        own = probabilities * (1 - probabilities)
        scale = 1 / (1 / problem.variance + own.mT @ squares)
        step = _conjugate_gradient(_curvature_product(problem, probabilities), gradient, scale)
        decrement = float((gradient * step).sum())
        if decrement < tolerance:
            break
        change = problem.design @ step.mT
        length = 1.0
        while length > 1e-6:
            trial = _objective(problem, deviation + length * step, logits + length * change)
            if trial >= value + 1e-4 * length * decrement - 1e-12 * value.abs():
                break
            length /= 2
        deviation, logits = deviation + length * step, logits + length * change
        value = _objective(problem, deviation, logits)
    return deviation


def weights_of(problem: ModeProblem, deviation: Tensor) -> Tensor:
    """Weights (C, D) of deviations (C, r)."""
    return problem.mean + (deviation if problem.axes is None else deviation @ problem.axes.mT)


def logits_of(problem: ModeProblem, deviation: Tensor) -> Tensor:
    """Logits (N, C) of the problem's own rows."""
    return problem.prior_logits + problem.design @ deviation.mT


def _objective(problem: ModeProblem, deviation: Tensor, logits: Tensor) -> Tensor:
    fit = SOFTMAX.log_likelihood(logits, problem.labels).sum()
    return fit - (deviation.square() / problem.variance).sum() / 2


def _curvature_product(problem: ModeProblem, probabilities: Tensor) -> Callable[[Tensor], Tensor]:
    """x -> (P₀⁻¹ + Φᵀ R Φ) x for x (C, r), with R = diag(p) − p pᵀ per row."""

    def product(direction: Tensor) -> Tensor:
        weighted = probabilities * (problem.design @ direction.mT)
        weighted = weighted - probabilities * weighted.sum(-1, keepdim=True)
        return weighted.mT @ problem.design + direction / problem.variance

    return product


def _conjugate_gradient(product: Callable[[Tensor], Tensor], target: Tensor, scale: Tensor) -> Tensor:
    """Solve H x = target with a diagonal preconditioner, tighter as the target shrinks."""
    solution = torch.zeros_like(target)
    remainder = target
    scaled = scale * remainder
    direction = scaled
    inner = (remainder * scaled).sum()
    if inner == 0:  # already there: the first step would be 0 / 0
        return solution
    stop = inner * torch.clamp(inner.sqrt(), max=0.1) ** 2
    for _ in range(CONJUGATE_STEPS):
        curved = product(direction)
        step = inner / (direction * curved).sum()
        solution = solution + step * direction
        remainder = remainder - step * curved
        scaled = scale * remainder
        previous, inner = inner, (remainder * scaled).sum()
        if inner <= stop:
            break
        direction = scaled + inner / previous * direction
    return solution
