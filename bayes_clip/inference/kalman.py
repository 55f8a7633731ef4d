"""The Kalman filter over batches: labelled rows become posterior updates, one batch after another.

init(...) -> state, update(state, batch) -> (state, info); `stream` feeds whole streams. The state is frozen
and holds tensors only. take_out and put_in replace a batch's contribution (as in expectation propagation),
so that no datum counts twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from bayes_clip.gaussian import FAMILIES, Belief
from bayes_clip.gaussian import design as designs
from bayes_clip.gaussian.belief import Projection
from bayes_clip.gaussian.gram import Gram
from bayes_clip.gaussian.row_gram import RowGram
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
    score: Callable[[], Tensor]  # what `prequential_score` is made by, when it is first read
    change: BatchUpdate  # the rule's sites, posterior logits, log evidence and iterations
    nis: Tensor  # () normalised innovation squared
    degrees_of_freedom: int  # of the innovations
    gain_norm: Tensor  # () length of the mean's step per unit of innovation
    seconds: float

    @cached_property
    def prequential_score(self) -> Tensor:
        """Sum over the rows of log p(y | data before the batch), a scalar in nats."""
        return self.score()

    def summary(self) -> StepInfo:
        """The same numbers without the rows' tensors: over many batches they would be too much to keep."""
        score = self.prequential_score
        return replace(self, score=lambda: score, change=self.change.bare())


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
    *,
    consume: bool = False,
) -> tuple[KalmanState, StepInfo]:
    """Propagate one time step (none before the first batch) and condition on the batch.

    Logits that are not linear are linearised at the batch's mode, or by rules of one step at the prediction.
    `consume`: the state given is used up, its covariance may be overwritten.
    """
    state, info, _ = _updated(state, batch, rule, state_space, observation, consume)
    return state, info


def propagated(state: KalmanState, state_space: StateSpace | Dynamics) -> Belief:
    """The belief one time step later; before the first batch, the prior as it is."""
    dynamics = as_dynamics(state_space)
    if dynamics.is_static or state.steps == 0:
        return state.belief
    noise = dynamics.noise * state.prior_variance
    return state.belief.diffuse(state.prior_mean, dynamics.decay, noise)


def take_out(state: KalmanState, batch: Batch, site: Site, *, consume: bool = False) -> KalmanState:
    """The belief without the batch's site: what the others say (the cavity). `consume` as in `update`."""
    projection, exact = projected(state.belief, batch)
    removal = exact.gram.without(site.matrix)
    dual = exact.gram.cavity_dual(removal, site.matrix, site.linear, exact.logits)
    cavity = conditioned(state.belief, projection, dual, -removal, consume=consume)
    return replace(state, belief=cavity, steps=state.steps - 1)


def put_in(
    state: KalmanState,
    batch: Batch,
    rule: Rule,
    observation: Observation = SOFTMAX,
    *,
    consume: bool = False,
) -> tuple[KalmanState, StepInfo, Site]:
    """`update` of the static model that also returns the batch's site, for `take_out`."""
    state, info, exact = _updated(state, batch, rule, STATIC, observation, consume)
    return state, info, site_of(exact, info.change)


def site_of(exact: Projection, change: BatchUpdate) -> Site:
    """What a batch said, from how it looked before (in float64) and what was concluded from it."""
    matrix = exact.gram.site_of(change.downdate)
    return Site(matrix, exact.gram.site_linear(matrix, change.logits, change.dual))


@dataclass(frozen=True)
class Surprise:
    """How well a batch was predicted before its labels were learned."""

    score: Callable[[], Tensor]  # () nats, made when it is asked for
    nis: Tensor  # ()
    degrees_of_freedom: int
    innovation: Tensor  # () length


def surprise(gram: Gram | RowGram, logits: Tensor, labels: Tensor, observation: Observation) -> Surprise:
    """The scores of a batch whose logits were predicted with mean `logits` (b, C) and covariance `gram`."""
    with one_thread():
        nis, freedom, innovation = _innovation(gram, logits, labels, observation)
    return Surprise(partial(prequential_score, gram, logits, labels, observation), nis, freedom, innovation)


def step_info(
    batch: Batch, before: Belief, moved: Belief, seen: Surprise, change: BatchUpdate, start: float
) -> StepInfo:
    """What is reported of a step that began at `start` (seconds of time.perf_counter)."""
    gain = (moved.mean - before.mean).norm() / seen.innovation.clamp_min(
        torch.finfo(seen.innovation.dtype).tiny
    )
    return StepInfo(
        rows=len(batch.labels),
        score=seen.score,
        change=change,
        nis=seen.nis,
        degrees_of_freedom=seen.degrees_of_freedom,
        gain_norm=gain,
        seconds=time.perf_counter() - start,
    )


def conclude(
    state: KalmanState, batch: Batch, exact: Projection, rule: Rule, observation: Observation
) -> BatchUpdate:
    """What the rule says of a batch, its rows taken together."""
    with one_thread():
        variance = prior_logit_variance(state, batch)
        return rule(observation, exact.gram, exact.logits, batch.labels, variance)


def _updated(
    state: KalmanState,
    batch: Batch | CurvedBatch,
    rule: Rule,
    state_space: StateSpace | Dynamics,
    observation: Observation,
    consume: bool,
) -> tuple[KalmanState, StepInfo, Projection]:
    """`update`, and the batch as the belief saw it before, in float64."""
    start = time.perf_counter()
    belief = propagated(state, state_space)
    seen = batch.at(belief.mean) if isinstance(batch, CurvedBatch) else batch
    projection, exact = projected(belief, seen)
    scores = surprise(exact.gram, exact.logits, batch.labels, observation)
    if isinstance(batch, CurvedBatch):
        if rule in RELINEARISING:  # only now: the mode has seen the labels, the score must not
            seen = at_mode(belief, batch, observation)
            projection, exact = projected(belief, seen)
        batch = seen
    change = conclude(state, batch, exact, rule, observation)
    own = consume or belief is not state.belief  # a belief that time has passed over is nobody else's
    moved = conditioned(belief, projection, change.dual, change.downdate, consume=own)
    info = step_info(batch, belief, moved, scores, change, start)
    return replace(state, belief=moved, steps=state.steps + 1), info, exact


def prior_logit_variance(state: KalmanState, batch: Batch) -> Tensor:
    """Mean prior variance of the batch's logits, a scalar."""
    return designs.times(batch.design.square(), state.prior_variance).mean().double()


def prequential_score(
    gram: Gram | RowGram, logits: Tensor, labels: Tensor, observation: Observation
) -> Tensor:
    """Σ log p(y) under the prediction, each row on its own: the batch is scored before it is learned.

    Exact for Gaussian observations, otherwise by Monte-Carlo, with draws as precise as the belief.
    """
    with one_thread():
        rough = logits.to(gram.known)
        samples = gram.samples(rough, gram.deviation().to(rough), fixed_noise(SCORE_DRAWS, rough))
        return observation.predictive_score(samples, labels, logits, gram.row_covariance).double().sum()


def _innovation(
    gram: Gram | RowGram, logits: Tensor, labels: Tensor, observation: Observation
) -> tuple[Tensor, int, Tensor]:
    """Normalised innovation squared, its degrees of freedom, and the length of the innovation.

    (R + R G R)⁺ = R⁺ − (I + G R)⁻¹ G on the range of R, so that νᵀ S⁺ ν = νᵀ R⁺ ν − νᵀ G a with the dual a of
    one Newton step.
    """
    curvature = observation.curvature(logits)
    innovation = observation.target(labels, logits) - observation.response(logits)
    dual = gram.newton(curvature, torch.zeros_like(innovation), innovation)
    nis = curvature.inverse_square(innovation) - (innovation * gram.times(dual)).sum()
    return nis.clamp_min(0), curvature.degrees_of_freedom, innovation.norm()
