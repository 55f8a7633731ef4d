"""What the whole stream says of the weights at every step: the Rauch-Tung-Striebel smoother.

The filter's belief at step k knows the batches up to k; the smoothed one knows the later ones as well. The
backward recursion needs the filtered beliefs of all T steps and no data (Särkkä 2013, theorem 8.2). With the
predicted belief N(m⁻, P⁻) of the next step, the smoothed one N(mˢ, Pˢ) of it, and the gain J = P γ (P⁻)⁻¹:

    m + J (mˢ − m⁻),   (I − J γ) P (I − J γ)ᵀ + J (Pˢ + Q) Jᵀ

The second form of P + J (Pˢ − P⁻) Jᵀ stays positive definite. Exact given the filtered beliefs: for Gaussian
observations under the full covariance it is the posterior of all steps; elsewhere it inherits the filter's
approximations (a site is not moved again once later batches are known).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import Belief, ClassBlock, Diagonal, Full, VariationalDiagonal
from bayes_clip.gaussian.cost import GIBIBYTE, free_memory
from bayes_clip.gaussian.matrices import symmetric
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import STATIC, KalmanState, StepInfo
from bayes_clip.inference.linearised import AnyBatch
from bayes_clip.inference.rules import Rule
from bayes_clip.inference.stream import Course, Cursor, walk
from bayes_clip.observation import SOFTMAX, Observation
from bayes_clip.state_space import Dynamics, StateSpace, as_dynamics

WORKING_MATRICES = 8  # float64, one step's: factors, gain and products


@dataclass(frozen=True)
class Smoothed:
    """The belief at each of T steps given all T batches; the last is the filter's own."""

    beliefs: tuple[Belief, ...]
    # Cov(θ_k, θ_{k−1}) given everything, k = 1..T−1, as blocks (blocks, n, n); empty unless asked for
    lag_one: tuple[Tensor, ...] = ()

    @property
    def means(self) -> Tensor:
        """Means of all steps, (T, C, D) or (T, P)."""
        return torch.stack([belief.mean for belief in self.beliefs])

    def __repr__(self) -> str:
        return f"Smoothed({len(self.beliefs)} steps, {type(self.beliefs[0]).__name__})"


def run_and_smooth(
    state: KalmanState,
    data: Sequence[AnyBatch],
    rule: Rule,
    state_space: StateSpace | Dynamics = STATIC,
    observation: Observation = SOFTMAX,
) -> tuple[Smoothed, list[StepInfo]]:
    """Filter the batches and smooth what was found: the smoothed beliefs, and the filter's infos.

    Keeps 2 T beliefs: the filtered and the smoothed.

    Raises:
        UserError: no batches, beliefs that would not fit into memory, or a family without a smoother.
    """
    _check_family(state.belief)
    check_fits(state.belief, len(data))
    course = Course(data, rule, state_space, observation)
    steps = list(walk(course, Cursor(state)))
    states, infos = [cursor.state for cursor, _ in steps], [info for _, info in steps]
    return smooth(states, state_space), infos


def smooth(
    states: Sequence[KalmanState], state_space: StateSpace | Dynamics, *, lag_one: bool = False
) -> Smoothed:
    """Smoothed beliefs from the filter's states after each of T batches, in the filter's dtype.

    `state_space` is the one they were filtered with; `lag_one` keeps the covariance of neighbours too.
    Each step is solved in float64 and takes O(n³) per block: one of n = P for full, C of n = D for
    class_block, none of more than one weight for diagonal. T beliefs of memory, twice that with `lag_one`.

    Raises:
        UserError: no states, a family without a smoother, or a belief that is not positive definite.
    """
    if not states:
        raise UserError("nothing to smooth: give at least one batch")
    _check_family(states[0].belief)
    dynamics = as_dynamics(state_space)
    smoothed = [states[-1].belief]
    neighbours: list[Tensor] = []
    for state in reversed(states[:-1]):
        belief, neighbour = _step(state, smoothed[-1], dynamics)
        smoothed.append(belief)
        if lag_one:
            neighbours.append(neighbour)
    return Smoothed(tuple(reversed(smoothed)), tuple(reversed(neighbours)))


def check_fits(belief: Belief, steps: int) -> None:
    """Refuse a stream whose filtered and smoothed beliefs would not fit into the device's free memory.

    Raises:
        UserError: says what it would take and what there is.
    """
    tensors = [cast(Tensor, getattr(belief, field.name)) for field in fields(belief)]  # type: ignore[arg-type]
    one = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    doubles = WORKING_MATRICES * sum(tensor.numel() * 8 for tensor in tensors)
    needed, free = 2 * steps * one + doubles, free_memory(str(belief.mean.device))
    if needed > free:
        raise UserError(
            f"smoothing {steps} steps keeps {2 * steps} beliefs of {one / GIBIBYTE:.2g} GiB, "
            f"{needed / GIBIBYTE:.1f} GiB in all, and {free / GIBIBYTE:.1f} GiB are free; use larger batches "
            "or --covariance diagonal"
        )


def _step(state: KalmanState, later: Belief, dynamics: Dynamics) -> tuple[Belief, Tensor]:
    """The smoothed belief of one step from that of the next, and their covariance (blocks, n, n)."""
    mean, covariance = _blocks(state.belief)
    later_mean, later_covariance = _blocks(later)
    if dynamics.is_static:  # then the weights are the same ones, and no solve should blur that
        return later, later_covariance
    predicted_mean, predicted_covariance = _blocks(kalman.propagated(state, dynamics))
    size = mean.shape
    decay = torch.as_tensor(dynamics.decay, dtype=mean.dtype, device=mean.device)
    decay = decay.expand(state.belief.mean.shape).reshape(size)
    factor, failed = torch.linalg.cholesky_ex(predicted_covariance)
    if failed.any():
        raise UserError(
            "smoother: a predicted covariance is not positive definite; filter with --dtype float64 or with "
            "more process noise"
        )
    gain = torch.cholesky_solve(decay[:, :, None] * covariance, factor).mT  # P γ (P⁻)⁻¹, both symmetric
    kept = torch.eye(size[1]).to(mean) - gain * decay[:, None, :]
    noise = (dynamics.noise * state.prior_variance).to(mean).reshape(size)
    spread = later_covariance + torch.diag_embed(noise)
    smoothed_mean = mean + (gain @ (later_mean - predicted_mean)[..., None])[..., 0]
    smoothed = kept @ covariance @ kept.mT + gain @ spread @ gain.mT
    return _belief(state.belief, smoothed_mean, symmetric(smoothed)), later_covariance @ gain.mT


def _check_family(belief: Belief) -> None:
    if not isinstance(belief, Full | ClassBlock | Diagonal | VariationalDiagonal):
        raise UserError(
            f"smoother: there is none for {type(belief).__name__}; "
            "use --covariance full, class_block or diagonal"
        )


def _blocks(belief: Belief) -> tuple[Tensor, Tensor]:
    """Mean (blocks, n) and covariance (blocks, n, n) of the independent blocks of a belief, in float64."""
    if isinstance(belief, Full):
        return belief.mean.double().reshape(1, -1), symmetric(belief.covariance.double())[None]
    if isinstance(belief, ClassBlock):
        return belief.mean.double(), symmetric(belief.covariance.double())
    variance = cast(Diagonal | VariationalDiagonal, belief).variance.double()
    return belief.mean.double().reshape(-1, 1), variance.reshape(-1, 1, 1)


def _belief(like: Belief, mean: Tensor, covariance: Tensor) -> Belief:
    """The belief of the family and dtype of `like` with these blocks."""
    shaped = mean.reshape(like.mean.shape).to(like.mean)
    if isinstance(like, Diagonal | VariationalDiagonal):
        variance = covariance.reshape(shaped.shape).to(shaped)
        if isinstance(like, Diagonal):
            return replace(like, mean=shaped, variance=variance)
        return replace(like, mean=shaped, precision=1 / variance)
    matrices = cast(Full | ClassBlock, like)
    whole = covariance.reshape(matrices.covariance.shape).to(matrices.covariance)
    return replace(matrices, mean=shaped, covariance=whole)
