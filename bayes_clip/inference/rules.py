"""Update rules: what a filter concludes from one batch, given the predicted logits and their covariance.

Each rule chooses sites, one per row: a Gaussian factor exp(hᵀz − ½ zᵀWz) that stands for the softmax
likelihood. They differ in where W and h are taken.

plain      at the predicted mean, once: the extended Kalman filter, one online natural-gradient step
           (Ollivier 2018). Breaks where the prior variance of a logit is large.
iterated   at the mode of the batch under the predicted belief, found by Newton with line search; the prior
           stays fixed. One batch is then exactly Laplace; no datum counts twice.
expected   averaged over the posterior of the batch instead of at a point: the variational fixed point
           W = E[curvature], h = W z + E[residual] (the conjugate-computation form, Khan & Lin 2017, of
           R-VGA, Lambert et al. 2022), with a limit on the spread that is averaged over. The default.
moment_matched  the best linear guess of the logits from the label, by the moments of both under the
           predicted belief, once: statistical linearisation (the conditional-moments filter, Tronarp,
           García-Fernández & Särkkä 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature
from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.gram import Gram
from bayes_clip.inference.conditional_moments import linearised_sites
from bayes_clip.observation import Gaussian, Observation, fixed_noise

NEWTON_TOLERANCE = 1e-10
START_TOLERANCE = 1e-2
NEWTON_STEPS = 100
FIXED_POINT_TOLERANCE = 1e-3
FIXED_POINT_STEPS = 60
FIXED_POINT_DAMPING = 0.6
NOISE_DRAWS = 128
SPREAD_LIMIT = 40.0


@dataclass(frozen=True)
class BatchUpdate:
    """What a rule concluded: how to move the belief, and the per-row sites that say the same.

    `dual` and `downdate` are what `Belief.condition` takes. `curvature` and `linear` are the rows' sites
    without the coupling between classes, (b, C) each: N C numbers that let a datum be taken out again.
    """

    dual: Tensor  # (b, C)
    downdate: Tensor  # the Gram's shape
    logits: Tensor  # (b, C) posterior mean logits
    curvature: Tensor  # (b, C) diagonal site precision
    linear: Tensor  # (b, C) diagonal site linear term
    log_evidence: Tensor  # () Laplace log normaliser at the posterior mean, nats
    iterations: int


# observation, gram, predicted logits (b, C), labels (b,), prior variance of a logit -> update
Rule = Callable[[Observation, Gram, Tensor, Tensor, Tensor], BatchUpdate]


def plain(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
) -> BatchUpdate:
    """One linearisation at the predicted logits (b, C): the textbook extended Kalman update."""
    curvature = observation.curvature(predicted)
    residual = observation.target(labels, predicted) - observation.response(predicted)
    dual = gram.newton(curvature, torch.zeros_like(predicted), residual)
    return _modal(observation, gram, predicted, labels, dual, curvature, 1)


def iterated(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
) -> BatchUpdate:
    """The batch's mode with the prior fixed, by damped Newton steps to a gradient of 1e-10."""
    dual, excess, steps = _mode(observation, gram, predicted, labels, NEWTON_TOLERANCE)
    curvature = observation.curvature(predicted + excess)
    return _modal(observation, gram, predicted, labels, dual, curvature, steps)


def expected(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
) -> BatchUpdate:
    """The variational fixed point: curvature and residual averaged over the batch's posterior logits.

    Starts at the batch's mode, without which saturated predictions send the first steps astray. Expectations
    by 128 fixed antithetic draws (Monte-Carlo error about 1 % of a site); stops when no site moves by 1e-3 or
    after 60 damped steps. The spread averaged over is the posterior's, shrunk by `spread_fraction`. For
    Gaussian observations it is the exact update.
    """
    target = observation.target(labels, predicted)
    noise = fixed_noise(NOISE_DRAWS, predicted)
    shrink = spread_fraction(prior_logit_variance) ** 0.5
    dual, excess, _ = _mode(observation, gram, predicted, labels, START_TOLERANCE)
    precision = gram.start(observation.curvature(predicted + excess))
    linear = gram.site_times(precision, predicted + excess) + dual
    damping, before, step = FIXED_POINT_DAMPING, float("inf"), 0
    while step < FIXED_POINT_STEPS and before > FIXED_POINT_TOLERANCE:
        dual, deviation = gram.given_sites(precision, linear, predicted)
        logits = predicted + gram.times(dual)
        mean, curvature = gram.expected(observation, gram.samples(logits, shrink * deviation, noise))
        change = gram.site_times(curvature, logits) + target - mean - linear
        # Gradient at the posterior mean, and precision: an offset common to all logits changes neither.
        moved = float(torch.maximum((target - mean - dual).abs().max(), (curvature - precision).abs().max()))
        damping = damping / 2 if moved > before else damping
        precision = precision + damping * (curvature - precision)
        linear = linear + damping * change
        before, step = moved, step + 1
    return _given(observation, gram, predicted, labels, precision, linear, step)


def moment_matched(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
) -> BatchUpdate:
    """Statistical linearisation under the predicted belief, once: see `conditional_moments`.

    One label at a time the mean is that of assumed-density filtering, and the variance its average over the
    labels that were expected; rows of a batch are linearised each by itself. Expectations by up to 4096 fixed
    draws. For Gaussian observations it is the exact update. O(b C²) memory.
    """
    if isinstance(observation, Gaussian):
        return plain(observation, gram, predicted, labels, prior_logit_variance)
    precision, linear = linearised_sites(observation, gram, predicted, labels)
    return _given(observation, gram, predicted, labels, precision, linear, 1)


def kalman_clip(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
) -> BatchUpdate:
    """Stands for `kalman_clip.update`, whose steps are no function of the logits."""
    raise UserError("--rule kalman_clip: observes cosines, not logits; it runs in the ekf engine alone")


def spread_fraction(prior_logit_variance: Tensor) -> Tensor:
    """The part of the posterior logit variance that `expected` averages over: 1 / (1 + (σ²/40)³).

    σ² = s² v is the prior variance of a logit. Up to about 30 it is right to average over nearly all of the
    posterior. A prior that leaves a logit a variance of 100 and more claims less than is known about it:
    averaging over what then remains unexplored would flatten the probabilities, so the spread is limited
    and the rule tends to `iterated`. The form and the 40 are empirical: analysis/filter_against_map.py.
    """
    return 1 / (1 + (prior_logit_variance / SPREAD_LIMIT) ** 3)


RULES: dict[str, Rule] = {
    "expected": expected,
    "iterated": iterated,
    "moment_matched": moment_matched,
    "plain": plain,
}
OTHER_RULES: dict[str, Rule] = {"kalman_clip": kalman_clip}
DEFAULT_RULE = "expected"
RELINEARISING = (expected, iterated)  # rules that linearise logits at the mode, not at the prediction


def find_rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        UserError: unknown name.
    """
    known = {**RULES, **OTHER_RULES}
    if name not in known:
        raise UserError(f"--rule {name}: no such rule.{nearest(name, known)} Known: {', '.join(known)}")
    return known[name]


def _mode(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """Dual and excess z − z₀ (b, C) of the batch's mode, and the Newton steps it took."""
    dual, excess = torch.zeros_like(predicted), torch.zeros_like(predicted)
    target = observation.target(labels, predicted)

    def objective(dual: Tensor, excess: Tensor) -> Tensor:
        return _objective(observation, predicted, labels, dual, excess)

    value = objective(dual, excess)
    for step in range(NEWTON_STEPS):
        logits = predicted + excess
        residual = target - observation.response(logits)
        if (dual - residual).abs().max() < tolerance:
            return dual, excess, step
        direction = gram.newton(observation.curvature(logits), excess, residual) - dual
        change, length = gram.times(direction), 1.0
        while True:  # halve the step until the (concave) objective no longer falls
            trial = objective(dual + length * direction, excess + length * change)
            if trial >= value - 1e-12 * value.abs() or length < 1e-6:
                break
            length /= 2
        dual, excess, value = dual + length * direction, excess + length * change, trial
    return dual, excess, NEWTON_STEPS


def _given(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    precision: Tensor,
    linear: Tensor,
    steps: int,
) -> BatchUpdate:
    """Update with the rows' sites: precision (b, C), joint ones (b, C, C), and linear term (b, C)."""
    dual, _ = gram.given_sites(precision, linear, predicted)
    logits = predicted + gram.times(dual)
    own = gram.own_class(precision)
    return BatchUpdate(
        dual=dual,
        downdate=gram.site_downdate(precision),
        logits=logits,
        curvature=own,
        linear=own * logits + dual,
        log_evidence=_log_evidence(observation, gram, predicted, labels, dual, observation.curvature(logits)),
        iterations=steps,
    )


def _modal(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    dual: Tensor,
    curvature: Curvature,
    steps: int,
) -> BatchUpdate:
    """Update with the curvature at the point of expansion."""
    logits = predicted + gram.times(dual)
    return BatchUpdate(
        dual=dual,
        downdate=gram.downdate(curvature),
        logits=logits,
        curvature=curvature.own,
        linear=curvature.own * logits + dual,
        log_evidence=_log_evidence(observation, gram, predicted, labels, dual, curvature),
        iterations=steps,
    )


def _objective(
    observation: Observation, predicted: Tensor, labels: Tensor, dual: Tensor, excess: Tensor
) -> Tensor:
    """log p(y | z) − ½ aᵀ G a: the log joint density of the batch up to a constant."""
    return observation.log_likelihood(predicted + excess, labels).sum() - (dual * excess).sum() / 2


def _log_evidence(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    dual: Tensor,
    curvature: Curvature,
) -> Tensor:
    fit = _objective(observation, predicted, labels, dual, gram.times(dual))
    return fit - gram.log_determinant(curvature) / 2
