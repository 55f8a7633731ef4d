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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.curvature import Curvature
from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.gram import Gram
from bayes_clip.inference.conditional_moments import linearised_sites
from bayes_clip.inference.fixed_point import fixed_point, told
from bayes_clip.inference.newton import log_joint, newton_mode
from bayes_clip.observation import Gaussian, Observation, fixed_noise

NEWTON_TOLERANCE = 1e-10
START_TOLERANCE = 1e-2
ROUGH_TOLERANCE = 1e-3
ROUGH_STEPS = 20  # after which less than float64 will not do
FIXED_POINT_TOLERANCE = 1e-3
FIXED_POINT_STEPS = 40
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
    iterations: int | Tensor  # () where a loop counted: on a device, reading it waits

    def bare(self) -> BatchUpdate:
        """The same with empty tensors for what has rows: of many batches that would be too much to keep."""
        none = self.dual[:0]
        return replace(self, dual=none, downdate=none, logits=none, curvature=none, linear=none)


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

    Starts near the batch's mode, without which saturated predictions send the first steps astray.
    Expectations by 128 fixed antithetic draws (Monte-Carlo error about 1 % of a site); stops when no site
    moves by 1e-3, or with the best of 40 points. The spread averaged over is the posterior's, shrunk by
    `spread_fraction`. Where the belief is in float32 so is the search, on a CPU; what is concluded from the
    sites is in float64. For Gaussian observations it is the exact update.
    """
    return _expected(observation, gram, predicted, labels, prior_logit_variance, None)


def expected_from(precision: Tensor, linear: Tensor) -> Rule:
    """`expected` that starts at these sites, (b, C) each as `BatchUpdate` has them, instead of the mode."""

    def rule(
        observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
    ) -> BatchUpdate:
        return _expected(observation, gram, predicted, labels, prior_logit_variance, (precision, linear))

    return rule


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


def natural_gradient(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, prior_logit_variance: Tensor
) -> BatchUpdate:
    """Stands for `natural_gradient.update`, whose steps need no Gram."""
    raise UserError("--rule natural_gradient: steps in the weights; it runs in the ekf engine alone")


RULES: dict[str, Rule] = {
    "expected": expected,
    "iterated": iterated,
    "moment_matched": moment_matched,
    "plain": plain,
}
OTHER_RULES: dict[str, Rule] = {"kalman_clip": kalman_clip, "natural_gradient": natural_gradient}
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


def _expected(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    prior_logit_variance: Tensor,
    start: tuple[Tensor, Tensor] | None,
) -> BatchUpdate:
    if isinstance(observation, Gaussian):
        return plain(observation, gram, predicted, labels, prior_logit_variance)
    fraction, rough = spread_fraction(prior_logit_variance), gram.rough()
    most = FIXED_POINT_STEPS if rough is gram else ROUGH_STEPS
    precision, pull, gap, steps = _averaged(observation, rough, predicted, labels, fraction, start, most)
    if rough is not gram and told(~(gap <= FIXED_POINT_TOLERANCE)):
        again = _averaged(observation, gram, predicted, labels, fraction, start, FIXED_POINT_STEPS)
        precision, pull, _, more = again
        steps = steps + more
    linear = pull.double() + gram.site_times(precision.double(), predicted)
    return _given(observation, gram, predicted, labels, precision.double(), linear, steps)


def _averaged(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    fraction: Tensor,
    start: tuple[Tensor, Tensor] | None,
    most: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The fixed point in the Gram's precision: sites W, pull h − W z₀, how far from fixed, and the steps."""
    predicted, shrink = predicted.to(gram.dtype), fraction.sqrt().to(gram.dtype)
    target = observation.target(labels, predicted)
    noise = fixed_noise(NOISE_DRAWS, predicted)
    if start is None:
        near = (fraction / 2).clamp_min(START_TOLERANCE)
        dual, excess, _ = newton_mode(observation, gram, predicted, labels, near, most=most)
        precision = gram.start(observation.curvature(predicted + excess))
        pull = gram.site_times(precision, excess) + dual
    else:
        precision, linear = start[0].to(gram.dtype), start[1].to(gram.dtype)
        pull = linear - gram.site_times(precision, predicted)
    shape, size = precision.shape, precision.numel()

    def change(point: Tensor) -> tuple[Tensor, Tensor]:
        precision, pull = point[:size].reshape(shape), point[size:].reshape(predicted.shape)
        excess, deviation = gram.posterior(precision, pull)
        mean, curvature = gram.averages(observation, predicted + excess, shrink * deviation, noise)
        # Gradient at the posterior mean, and precision: an offset common to all logits changes neither.
        turned, residual = curvature - precision, target - mean
        dual = pull - gram.site_times(precision, excess)
        moved = gram.site_times(curvature, excess) + residual - pull
        gap = torch.maximum((residual - dual).abs().max(), turned.abs().max())
        return torch.cat([turned.flatten(), moved.flatten()]), gap

    def admissible(point: Tensor) -> Tensor:
        return torch.cat([gram.admissible(point[:size].reshape(shape)).flatten(), point[size:]])

    first = torch.cat([precision.flatten(), pull.flatten()])
    found, gap, steps = fixed_point(change, admissible, first, FIXED_POINT_TOLERANCE, most)
    return found[:size].reshape(shape), found[size:].reshape(predicted.shape), gap, steps


def _mode(
    observation: Observation, gram: Gram, predicted: Tensor, labels: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Dual and excess z − z₀ (b, C) of the batch's mode, and the Newton steps it took.

    The first steps are in the precision of the belief, the last ones in float64.
    """
    rough = gram.rough()
    if rough is gram:
        return newton_mode(observation, gram, predicted, labels, tolerance)
    known = predicted.to(rough.dtype)
    near, _, before = newton_mode(observation, rough, known, labels, ROUGH_TOLERANCE, most=ROUGH_STEPS)
    start = torch.where(near.isfinite().all(), near, 0).double()
    dual, excess, steps = newton_mode(observation, gram, predicted, labels, tolerance, start)
    return dual, excess, steps + before


def _given(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    precision: Tensor,
    linear: Tensor,
    steps: int | Tensor,
) -> BatchUpdate:
    """Update with the rows' sites: precision (b, C), joint ones (b, C, C), and linear term (b, C)."""
    dual, downdate = gram.concluded(precision, linear - gram.site_times(precision, predicted))
    logits = predicted + gram.times(dual)
    own = gram.own_class(precision)
    return BatchUpdate(
        dual=dual,
        downdate=downdate,
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
    steps: int | Tensor,
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


def _log_evidence(
    observation: Observation,
    gram: Gram,
    predicted: Tensor,
    labels: Tensor,
    dual: Tensor,
    curvature: Curvature,
) -> Tensor:
    fit = log_joint(observation, predicted, labels, dual, gram.times(dual))
    return fit - gram.log_determinant(curvature) / 2
