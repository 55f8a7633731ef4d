"""The posterior mode of a linear softmax head: truncated Newton in the prior's own scale.

Gradients and the objective are in float64; the conjugate gradients that find a step are in float32, which
changes how many steps there are and not where they end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

NEWTON_STEPS = 100
CONJUGATE_STEPS = 250
# Of a Newton step's residual, in the preconditioner's norm: beyond a tenth, the next step does more.
FORCING = 0.1
FOLD_STEPS = 2  # the second takes away most of what the first one misses
# Newton decrement in nats: the squared distance to the mode in posterior standard deviations.
DECREMENT_TOLERANCE = {torch.float64: 1e-16, torch.float32: 1e-9}


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
    problem: ModeProblem,
    start: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    tolerance: float | None = None,
) -> Tensor:
    """Deviations of the mode from the prior mean, float64 (C, r), as precise as weights of `dtype` can tell.

    Ends with the first step whose Newton decrement is below `tolerance` nats (by `dtype`: 1e-16, or 1e-9 for
    float32); the error it leaves is a hundredth of that. `start` (C, r) warm-starts. The objective is
    strictly concave, so there is one mode.
    """
    tolerance = DECREMENT_TOLERANCE[dtype] if tolerance is None else tolerance
    target = torch.nn.functional.one_hot(problem.labels, len(problem.mean)).mT  # (C, N)
    rough = problem.design.float()
    deviation = start
    if deviation is None:
        deviation = problem.mean.new_zeros(len(problem.mean), problem.design.shape[1])
    logits = problem.prior_logits.mT + deviation @ problem.design.mT  # (C, N)
    value = _objective(problem, deviation, logits)
    for _ in range(NEWTON_STEPS):
        probabilities = logits.softmax(0)
        gradient = (target - probabilities) @ problem.design - deviation / problem.variance
        product = _curvature_product(rough, problem.variance, probabilities)
        precondition = _preconditioner(problem, probabilities)
        step = _conjugate_gradient(product, precondition, gradient.to(rough)).to(gradient)
        decrement = float((gradient * step).sum())
        change, length = step @ problem.design.mT, 1.0
        while True:  # halve the step until the (concave) objective no longer falls
            trial = _objective(problem, deviation + length * step, logits + length * change)
            if trial >= value + 1e-4 * length * decrement - 1e-12 * value.abs() or length < 1e-6:
                break
            length /= 2
        deviation, logits, value = deviation + length * step, logits + length * change, trial
        if decrement < tolerance:
            break
    return deviation


def left_out_modes(problem: ModeProblem, mode: Tensor, folds: Sequence[Tensor]) -> Tensor:
    """Deviations (K, C, r), float32, of the modes without each of the K `folds`, row numbers of all rows.

    Two Newton steps from the `mode` (C, r) of all rows, for all folds at once, each with a
    direction that is right to a tenth in the norm of the curvature. One step where there are two folds: what
    half of the rows say alone is too much of an extrapolation (analysis/prior_variance_regret.py).
    """
    design, variance = problem.design.float(), problem.variance.float()
    kept = design.new_ones(len(folds), 1, len(design))  # (K, 1, N)
    for fold, rows in enumerate(folds):
        kept[fold, :, rows] = 0
    target = torch.nn.functional.one_hot(problem.labels, len(mode)).mT
    beginning = logits_of(problem, mode).mT.float()
    precondition = _preconditioner(problem, beginning.softmax(0).double())
    deviation, logits = mode.float().expand(len(folds), -1, -1), beginning.expand(len(folds), -1, -1)
    for _ in range(FOLD_STEPS if len(folds) > 2 else 1):
        probabilities = logits.softmax(1)
        gradient = (kept * (target - probabilities)) @ design - deviation / variance
        product = _curvature_product(design, variance, probabilities, kept)
        step = _conjugate_gradient(product, precondition, gradient)
        deviation, logits = deviation + step, logits + step @ design.mT
    return deviation


def left_out_logits(problem: ModeProblem, modes: Tensor, folds: Sequence[Tensor]) -> Tensor:
    """Logits (N, C) of each row at the mode without its fold; `modes` as `left_out_modes` gives them."""
    left_out = torch.empty_like(problem.prior_logits)
    for rows, mode in zip(folds, modes, strict=True):
        left_out[rows] = problem.prior_logits[rows] + problem.design[rows] @ mode.mT.double()
    return left_out


def weights_of(problem: ModeProblem, deviation: Tensor) -> Tensor:
    """Weights (C, D) of deviations (C, r)."""
    return problem.mean + (deviation if problem.axes is None else deviation @ problem.axes.mT)


def logits_of(problem: ModeProblem, deviation: Tensor) -> Tensor:
    """Logits (N, C) of the problem's own rows."""
    return problem.prior_logits + problem.design @ deviation.mT


def _objective(problem: ModeProblem, deviation: Tensor, logits: Tensor) -> Tensor:
    """Log joint density up to a constant, a scalar; `logits` (C, N)."""
    fit = logits.gather(0, problem.labels[None]).sum() - logits.logsumexp(0).sum()
    return fit - (deviation.square() / problem.variance).sum() / 2


def _curvature_product(
    design: Tensor, variance: Tensor, probabilities: Tensor, kept: Tensor | float = 1.0
) -> Callable[[Tensor], Tensor]:
    """x -> (P₀⁻¹ + Φᵀ R Φ) x for x (..., C, r) in the design's dtype, R = diag(p) − p pᵀ for rows `kept`."""
    probabilities, variance = probabilities.to(design), variance.to(design)
    weighted = kept * probabilities

    def product(direction: Tensor) -> Tensor:
        seen = direction @ design.mT
        seen -= (probabilities * seen).sum(-2, keepdim=True)
        return (weighted * seen) @ design + direction / variance

    return product


def _preconditioner(problem: ModeProblem, probabilities: Tensor) -> Callable[[Tensor], Tensor]:
    """float32 x -> roughly (P₀⁻¹ + Φᵀ R Φ)⁻¹ x: rows unrelated to their curvature, features orthogonal.

    With A the mean of R over rows and s_d = Σ φ_d²: V½ U (I + e s)⁻¹ Uᵀ V½, where V½ holds the prior's
    standard deviations and U e Uᵀ = V½ A V½ (V its mean over features).
    """
    curvature = torch.diag(probabilities.sum(1)) - probabilities @ probabilities.mT
    root = problem.variance.mean(1).sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * curvature * root / len(problem.design))
    shrink = 1 / (1 + values.clamp_min(0)[:, None] * problem.design.square().sum(0))
    shrink, vectors, deviation = shrink.float(), vectors.float(), problem.variance.sqrt().float()

    def precondition(target: Tensor) -> Tensor:
        return deviation * (vectors @ (shrink * (vectors.mT @ (deviation * target))))

    return precondition


def _conjugate_gradient(
    product: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], target: Tensor
) -> Tensor:
    """Solve H x = target (..., C, r), each to a tenth of where it began, in the preconditioner's norm."""
    solution, remainder = torch.zeros_like(target), target.clone()
    direction = precondition(remainder)
    inner = _inner(remainder, direction)
    stop = inner * FORCING**2
    tiny = torch.finfo(target.dtype).tiny  # where one is solved already, its next step is 0 / tiny
    for _ in range(CONJUGATE_STEPS):
        if (inner <= stop).all():
            break
        curved = product(direction)
        length = inner / _inner(direction, curved).clamp_min(tiny)
        solution += length * direction
        remainder -= length * curved
        scaled = precondition(remainder)
        previous, inner = inner, _inner(remainder, scaled)
        direction = scaled + inner / previous.clamp_min(tiny) * direction
    return solution


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner products (..., 1, 1) of (..., C, r)."""
    return (left * right).sum((-2, -1), keepdim=True)
