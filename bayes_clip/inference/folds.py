"""What a fitted head would have said of each support row had its fold been left out, in closed form.

Every row's likelihood is a Gaussian site with precision w and residual a per class. Taking a fold's sites out
of the posterior is Gaussian algebra on its own logits (the cavity of expectation propagation; for one row the
well-known leave-one-out shift). A fold holds whole shots of every class, so what remains stays balanced:
leaving out single rows makes their class one shot short of its rivals and biases the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bayes_clip.threads import one_thread

MOST_FOLDS = 8

# prior variance -> mean and variance (N, C) of each support row's logits without its fold
FoldMoments = Callable[[float], tuple[Tensor, Tensor]]


def cavity_moments(
    design: Tensor,
    prior_variance: Tensor,
    logits: Tensor,
    precision: Tensor,
    residual: Tensor,
    folds: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of each row's logits without its fold.

    `design` (N, r); `prior_variance` (C, r) or (C, 1); posterior mean `logits`, site `precision` and
    `residual` (y − p, or h − w z) (N, C) each; `folds` are row numbers that together cover all rows.
    Exact for the given sites with classes independent: V₋ = (V⁻¹ − W)⁻¹ = (I − V W)⁻¹ V, z₋ = z − V₋ a.
    For the sites of a mode it is one Newton step from the full fit to the fit without the fold.
    """
    mean, variance = torch.empty_like(logits), torch.empty_like(logits)
    variances = prior_variance.expand(-1, design.shape[1])
    for index in range(logits.shape[1]):
        weight = precision[:, index]
        system = (design.mT * weight) @ design
        system.diagonal().add_(1 / variances[index])
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(system), design.mT, upper=False)
        with one_thread():
            for rows in folds:
                own = half[:, rows]
                posterior = own.mT @ own
                taken = -posterior * weight[rows]
                taken.diagonal().add_(1)
                cavity = torch.linalg.solve(taken, posterior)
                mean[rows, index] = logits[rows, index] - cavity @ residual[rows, index]
                variance[rows, index] = cavity.diagonal().clamp_min(0)
    return mean, variance
