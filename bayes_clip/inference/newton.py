"""The mode of a batch under its predicted belief, by Newton steps with line search."""

from __future__ import annotations

import torch
from torch import Tensor

from bayes_clip.gaussian.gram import Gram
from bayes_clip.inference.fixed_point import rounds, told
from bayes_clip.observation import Observation

MOST_STEPS = 100
HALVINGS = 20  # of a step, at most
SLACK = 4  # units of rounding by which the objective may fall


def newton_mode(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    tolerance: float | Tensor,
    start: Tensor | None = None,
    most: int = MOST_STEPS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Dual a and excess z − z₀ = G a, (b, C), of the batch's mode, and the Newton steps it took, a scalar.

    The prior stays fixed. From the dual `start` (none: zero) until the dual is the residual
    to `tolerance`, or for `most` steps; a step is halved until the (concave) objective does not fall.
    """
    dual = torch.zeros_like(predicted) if start is None else start
    excess = gram.times(dual)
    target = observation.target(labels, predicted)
    value = log_joint(observation, predicted, labels, dual, excess)
    steps = torch.zeros((), dtype=torch.int64, device=predicted.device)
    for _ in rounds(most, predicted):
        logits = predicted + excess
        residual = target - observation.response(logits)
        done = ~((dual - residual).abs().max() >= tolerance)  # also where it is no number
        if told(done):
            break
        direction = gram.newton(observation.curvature(logits), excess, residual) - dual
        ends = predicted, dual, excess, direction, gram.times(direction)
        length, reached = _step_length(observation, labels, value, *ends)
        dual = torch.where(done, dual, dual + length * direction)
        excess = torch.where(done, excess, excess + length * ends[-1])
        value, steps = torch.where(done, value, reached), steps + ~done
    return dual, excess, steps


def log_joint(
    observation: Observation, predicted: Tensor, labels: Tensor, dual: Tensor, excess: Tensor
) -> Tensor:
    """log p(y | z) − ½ aᵀ G a, the batch's log joint density up to a constant: (...,) from (..., b, C)."""
    fit = observation.log_likelihood(predicted + excess, labels).sum(-1)
    return fit - (dual * excess).sum((-2, -1)) / 2


def _step_length(
    observation: Observation,
    labels: Tensor,
    value: Tensor,
    predicted: Tensor,
    dual: Tensor,
    excess: Tensor,
    direction: Tensor,
    change: Tensor,
) -> tuple[Tensor, Tensor]:
    """The longest of the steps 1, ½, ¼, ... at which the objective does not fall, and its value there.

    All are tried at once, unless the whole step is seen to do.
    """
    least = value - SLACK * torch.finfo(value.dtype).eps * value.abs()
    whole = log_joint(observation, predicted, labels, dual + direction, excess + change)
    if told(whole >= least):
        return torch.ones_like(whole), whole
    lengths = 0.5 ** torch.arange(HALVINGS + 1, device=value.device, dtype=value.dtype)
    each = lengths[:, None, None]
    values = log_joint(observation, predicted, labels, dual + each * direction, excess + each * change)
    first = (values >= least).cumsum(0).eq(0).sum().clamp_max(HALVINGS)
    return lengths.gather(0, first[None])[0], values.gather(0, first[None])[0]
