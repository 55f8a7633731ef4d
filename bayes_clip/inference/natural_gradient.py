"""The rule `natural_gradient`: one online natural-gradient step in the diagonal of the precision.

    Λ⁺ = Λ + diag(Hᵀ R H),   m⁺ = m + Λ⁺⁻¹ Hᵀ r

With the whole precision this is the extended Kalman update, the rule `plain` (Ollivier 2018, "Online
natural gradient as a Kalman filter"). With its diagonal alone it is the cheapest Kalman update there is,
O(P b), the one of Chang, Murphy & Jones (2022) and of the diagonal filters of other libraries, with the
model's own Fisher information: no Gram matrix, no system to solve. The price: rows that say the same each
take a step as if they were alone, so large batches at wide priors overshoot where `plain` does not.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import torch

from bayes_clip.errors import UserError
from bayes_clip.gaussian import VariationalDiagonal
from bayes_clip.gaussian.design import pull_back
from bayes_clip.gaussian.row_gram import RowGram
from bayes_clip.gaussian.site_gram import information_diagonal
from bayes_clip.inference.kalman import (
    STATIC,
    KalmanState,
    StepInfo,
    Surprise,
    prequential_score,
    propagated,
    step_info,
)
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import BatchUpdate
from bayes_clip.observation import SOFTMAX, Observation
from bayes_clip.state_space import Dynamics, StateSpace
from bayes_clip.threads import one_thread

NAME = "natural_gradient"


def update(
    state: KalmanState,
    batch: Batch,
    state_space: StateSpace | Dynamics = STATIC,
    observation: Observation = SOFTMAX,
) -> tuple[KalmanState, StepInfo]:
    """`kalman.update` with this rule, for linear heads under `diagonal_variational`.

    What the info says of evidence and innovations takes every row by itself; `change.dual` is the residual.

    Raises:
        UserError: another covariance, or no linear head.
    """
    start, belief = time.perf_counter(), propagated(state, state_space)
    if not isinstance(belief, VariationalDiagonal):
        raise UserError(
            f"--rule {NAME}: keeps the diagonal of the precision only; use --covariance diagonal_variational"
        )
    if batch.design.ndim != 2:
        raise UserError(f"--rule {NAME}: needs a linear head; use --rule plain")
    with one_thread():
        design, like = batch.design, belief.mean
        variance = design.square() @ belief.variance.mT
        exact = (design @ like.mT).double()
        exact = exact if batch.offset is None else exact + batch.offset.double()
        rows = RowGram(variance.double(), known=variance.dtype)
        curvature = observation.curvature(exact)
        residual = observation.target(batch.labels, exact) - observation.response(exact)
        precision = belief.precision + information_diagonal(design, curvature.own.to(like))
        mean = like + pull_back(design, residual.to(like)) / precision
        moved = VariationalDiagonal(mean, precision)
        alone = rows.newton(curvature, torch.zeros_like(exact), residual)
        risen = rows.times(alone)
        nis = curvature.inverse_square(residual) - (residual * risen).sum()
        seen = Surprise(
            score=partial(prequential_score, rows, exact, batch.labels, observation),
            nis=nis.clamp_min(0),
            degrees_of_freedom=curvature.degrees_of_freedom,
            innovation=residual.norm(),
        )
        fit = observation.log_likelihood(exact + risen, batch.labels).sum() - (alone * risen).sum() / 2
        change = BatchUpdate(
            dual=residual,
            downdate=curvature.own,
            logits=exact + (design @ (mean - like).mT).double(),
            curvature=curvature.own,
            linear=curvature.own * exact + residual,
            log_evidence=fit - rows.log_determinant(curvature) / 2,
            iterations=1,
        )
    info = step_info(batch, belief, moved, seen, change, start)
    return replace(state, belief=moved, steps=state.steps + 1), info
