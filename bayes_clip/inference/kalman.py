"""The Kalman filter over batches: labelled rows become posterior updates, one batch after another.

init(...) -> state, update(state, batch) -> (state, info); `stream` feeds whole streams. The state is frozen
and holds tensors only. take_out and put_in replace a batch's contribution (as in expectation propagation),
so that no datum counts twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.gaussian import FAMILIES, Belief
from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.belief import Projection
from bayes_clip.inference.linearised import Batch, CurvedBatch, at_mode, conditioned, projected
from bayes_clip.inference.rules import RELINEARISING, BatchUpdate, Rule
from bayes_clip.observation import SOFTMAX, Observation, fixed_noise
from bayes_clip.state_space import Dynamics, StateSpace, as_dynamics
from bayes_clip.threads import one_thread

SCORE_DRAWS = 128
STATIC = StateSpace()


@dataclass(frozen=True)
class Site:
    """What one batch said: a Gaussian factor in its own logits."""

    matrix: Tensor  # site precision, the Gram's shape
    linear: Tensor  # (b, C)


@dataclass(frozen=True)
class KalmanState:
    """The belief after `steps` batches, and the prior it decays to."""

    belief: Belief
    prior_mean: Tensor  # (C, D), or (P,) for a program that is no linear head
    prior_variance: Tensor  # the same shape
    steps: int = 0
    noise: Tensor | None = None  # () of an observation whose noise is learned on the way (kalman_clip)


@dataclass(frozen=True)
class StepInfo:
    """What one update reports; tensors stay on the device, reading one waits for it.

    `nis` is νᵀ S⁺ ν with the innovation ν = y − response at the predicted logits and S = R + R G R its
    predicted covariance, for the batch as a whole. For Gaussian observations it is chi-square distributed
    with `degrees_of_freedom` where the model is right; for labels it is not (a sure and right prediction
    makes it nearly zero, a wrong one huge), though its mean is the degrees of freedom to first order.
    """

    rows: int
    prequential_score: Tensor  # () sum over rows of log p(y | data before the batch), nats
    change: BatchUpdate  # the rule's sites, posterior logits, log evidence and iterations
    nis: Tensor  # () normalised innovation squared
    degrees_of_freedom: int  # of the innovations
    gain_norm: Tensor  # () length of the mean's step per unit of innovation
    seconds: float


def init(prior_mean: Tensor, prior_variance: Tensor, covariance: str) -> KalmanState:
    """The state before any data: the prior N(`prior_mean`, diag `prior_variance`), of one shape."""
    belief = FAMILIES[covariance].from_prior(prior_mean, prior_variance)
    return KalmanState(belief, prior_mean, prior_variance)


def update(
    state: KalmanState,
    batch: Batch | CurvedBatch,
    rule: Rule,
    state_space: StateSpace | Dynamics = STATIC,
    observation: Observation = SOFTMAX,
) -> tuple[KalmanState, StepInfo]:
    """Propagate one time step (none before the first batch) and condition on the batch.

    Logits that are not linear are linearised at the batch's mode, or by rules of one step at the prediction.
    """
    state, info, _ = _updated(state, batch, rule, state_space, observation)
    return state, info


def propagated(state: KalmanState, state_space: StateSpace | Dynamics) -> Belief:
    """The belief one time step later; before the first batch, the prior as it is."""
    dynamics = as_dynamics(state_space)
    if dynamics.is_static or state.steps == 0:
        return state.belief
    noise = dynamics.noise * state.prior_variance
    return state.belief.diffuse(state.prior_mean, dynamics.decay, noise)


def take_out(state: KalmanState, batch: Batch, site: Site) -> KalmanState:
    """The belief without the batch's site: what the other batches say (the cavity)."""
    projection, exact = projected(state.belief, batch)
    removal = exact.gram.without(site.matrix)
    dual = exact.gram.cavity_dual(removal, site.matrix, site.linear, exact.logits)
    return replace(state, belief=conditioned(state.belief, projection, dual, -removal), steps=state.steps - 1)


def put_in(
    state: KalmanState, batch: Batch, rule: Rule, observation: Observation = SOFTMAX
) -> tuple[KalmanState, StepInfo, Site]:
    """`update` of the static model that also returns the batch's site, for `take_out`."""
    state, info, exact = _updated(state, batch, rule, STATIC, observation)
    matrix = exact.gram.site_of(info.change.downdate)
    linear = exact.gram.site_linear(matrix, info.change.logits, info.change.dual)
    return state, info, Site(matrix, linear)


def _updated(
    state: KalmanState,
    batch: Batch | CurvedBatch,
    rule: Rule,
    state_space: StateSpace | Dynamics,
    observation: Observation,
) -> tuple[KalmanState, StepInfo, Projection]:
    """`update`, and the batch as the belief saw it before, in float64."""
    start = time.perf_counter()
    belief = propagated(state, state_space)
    seen = batch.at(belief.mean) if isinstance(batch, CurvedBatch) else batch
    projection, exact = projected(belief, seen)
    with one_thread():
        score = _prequential_score(exact, batch.labels, observation)
        nis, freedom, innovation = _innovation(exact, batch.labels, observation)
    if isinstance(batch, CurvedBatch):
        if rule in RELINEARISING:  # only now: the mode has seen the labels, the score must not
            seen = at_mode(belief, batch, observation)
            projection, exact = projected(belief, seen)
        batch = seen
    with one_thread():
        variance = _prior_logit_variance(state, batch)
        change = rule(observation, exact.gram, exact.logits, batch.labels, variance)
    moved = conditioned(belief, projection, change.dual, change.downdate)
    gain = (moved.mean - belief.mean).norm() / innovation.clamp_min(torch.finfo(innovation.dtype).tiny)
    seconds = time.perf_counter() - start
    info = StepInfo(len(batch.labels), score, change, nis, freedom, gain, seconds)
    return replace(state, belief=moved, steps=state.steps + 1), info, exact


def _prior_logit_variance(state: KalmanState, batch: Batch) -> Tensor:
    """Mean prior variance of the batch's logits, a scalar."""
    return designs.times(batch.design.square(), state.prior_variance).mean().double()


def _prequential_score(exact: Projection, labels: Tensor, observation: Observation) -> Tensor:
    """Σ log p(y) under the prediction, each row on its own: the batch is scored before it is learned.

    Exact for Gaussian observations, otherwise by Monte-Carlo.
    """
    noise = fixed_noise(SCORE_DRAWS, exact.logits)
    samples = exact.gram.samples(exact.logits, exact.gram.deviation(), noise)
    return observation.predictive_score(samples, labels, exact.logits, exact.gram.row_covariance()).sum()


def _innovation(exact: Projection, labels: Tensor, observation: Observation) -> tuple[Tensor, int, Tensor]:
    """Normalised innovation squared, its degrees of freedom, and the length of the innovation.

    (R + R G R)⁺ = R⁺ − (I + G R)⁻¹ G on the range of R, so that νᵀ S⁺ ν = νᵀ R⁺ ν − νᵀ G a with the dual a of
    one Newton step.
    """
    curvature = observation.curvature(exact.logits)
    innovation = observation.target(labels, exact.logits) - observation.response(exact.logits)
    dual = exact.gram.newton(curvature, torch.zeros_like(innovation), innovation)
    nis = curvature.inverse_square(innovation) - (innovation * exact.gram.times(dual)).sum()
    return nis.clamp_min(0), curvature.degrees_of_freedom, innovation.norm()
