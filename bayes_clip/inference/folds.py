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
# W½ G W½ + I has eigenvalues from 1 to one more than its trace: up to here float32 factors it safely.
SAFE_TRACE = 1e5

# prior variance -> mean and variance (N, C) of each support row's logits without its fold
FoldMoments = Callable[[float], tuple[Tensor, Tensor]]


def cavity_moments(
    design: Tensor,
    prior_variance: Tensor,
    logits: Tensor,
    precision: Tensor,
    residual: Tensor,
    folds: Sequence[Tensor],
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of each row's logits without its fold.

    `design` (N, r); `prior_variance` (C, r) or (C, 1); posterior mean `logits`, site `precision` and
    `residual` (y − p, or h − w z) (N, C) each; `folds` are row numbers that together cover all rows.
    Exact for the given sites with classes independent, and for those of a mode one Newton step. The
    posterior is found in `dtype`, unless the prior is too wide for it. About 2 N r² + N² r / 8 operations
    per class.
    """
    variances = prior_variance.expand(-1, design.shape[1])
    if float((precision.mT * (variances @ design.square().mT)).sum(1).max()) > SAFE_TRACE:
        dtype = torch.float64
    rows, variances = design.to(dtype), variances.to(dtype)
    blocks = [logits.new_empty(logits.shape[1], len(fold), len(fold)) for fold in folds]
    for index, weight in enumerate(precision.to(dtype).mT):
        system = (rows.mT * weight) @ rows
        system.diagonal().add_(1 / variances[index])
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(system), rows.mT, upper=False)
        for fold, block in zip(folds, blocks, strict=True):
            own = half[:, fold]
            block[index] = own.mT @ own
    return without_folds(blocks, logits, precision, residual, folds)


def without_folds(
    posterior: Sequence[Tensor], logits: Tensor, precision: Tensor, residual: Tensor, folds: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The same from the posterior covariance of each fold's logits, (C, n, n) each.

    V₋ = (V⁻¹ − W)⁻¹ = (I − V W)⁻¹ V and z₋ = z − V₋ a.
    """
    mean, variance = torch.empty_like(logits), torch.empty_like(logits)
    for fold, block in zip(folds, posterior, strict=True):
        with one_thread():
            taken = -block * precision[fold].mT[:, None]
            taken.diagonal(dim1=1, dim2=2).add_(1)
            cavity = torch.linalg.solve(taken, block)
            mean[fold] = logits[fold] - (cavity @ residual[fold].mT[..., None])[..., 0].mT
            variance[fold] = cavity.diagonal(dim1=1, dim2=2).mT.clamp_min(0)
    return mean, variance
