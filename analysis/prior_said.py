"""What a candidate of prior_and_predictive.py says: probabilities, and kinds of doubt."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

import bayes_clip as bc
from bayes_clip.fitting import Fit
from bayes_clip.gaussian.logits import SeparateLogits
from bayes_clip.gaussian.noise import keys_of
from bayes_clip.inference.engines import Problem
from bayes_clip.inputs import inputs_of, task_context
from bayes_clip.model import find_model
from bayes_clip.predictive import average_entropy, closed_form, entropy

SPLIT_DRAWS = 64


@dataclass(frozen=True)
class Said:
    """What a candidate says. Doubts: name -> scores (M,) of the query rows, and (K,) of others."""

    arm: str
    probabilities: Tensor  # (M, C)
    doubts: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    prior_variance: float | None = None
    scale: float | None = None  # of the covariance, or the temperature
    seconds: float = 0.0  # of the processor, choosing included


@dataclass(frozen=True)
class Belief:
    """Moments of the logits of the query rows (M, C) and of the rows from elsewhere (K, C)."""

    mean: Tensor
    variance: Tensor
    far_mean: Tensor
    far_variance: Tensor

    def novelty(self) -> tuple[Tensor, Tensor]:
        """σ² − μ of the winning logit, as `Prediction` has it."""
        return _novelty(self.mean, self.variance), _novelty(self.far_mean, self.far_variance)


def belief_of(drawn: bc.Task, fit: Fit) -> Belief:
    """Moments of the logits of the task's query and OOD rows, float64; without OOD rows those are none."""
    far = drawn.query_features[:0] if drawn.ood_features is None else drawn.ood_features
    moments = []
    for features in (drawn.query_features, far):
        logits = fit.posterior.logits.predicted_logits(fit.posterior.as_inputs(features))
        moments += [logits.mean.double(), logits.variance.double()]
    return Belief(*moments)


def of_belief(
    arm: str,
    drawn: bc.Task,
    belief: Belief,
    probabilities: Tensor,
    variance: float | None,
    scale: float,
    seconds: float = 0.0,
    split: bool = True,
) -> Said:
    """With the entropy split under the whole posterior where asked for: it takes draws."""
    far = closed_form(belief.far_mean, scale * belief.far_variance)
    doubts = {
        "confidence": (1 - probabilities.amax(-1), 1 - far.amax(-1)),
        "novelty": belief.novelty(),
    }
    if split:
        sides = (
            (belief.mean, belief.variance, drawn.query_features),
            (belief.far_mean, belief.far_variance, drawn.ood_features),
        )
        parts = [
            average_entropy(SeparateLogits(mean, variance), keys_of(rows), SPLIT_DRAWS)
            for mean, variance, rows in sides
            if rows is not None
        ]
        if len(parts) == len(sides):
            doubts["aleatoric"] = parts[0][0], parts[1][0]
            doubts["epistemic"] = parts[0][1], parts[1][1]
    return Said(arm, probabilities, doubts, variance, scale, seconds)


def of_point(
    arm: str,
    logits: tuple[Tensor, Tensor],
    variance: float | None = None,
    scale: float | None = None,
    seconds: float = 0.0,
) -> Said:
    near, far = (each.softmax(-1) for each in logits)
    confidence = 1 - near.amax(-1), 1 - far.amax(-1)
    doubts = {
        "confidence": confidence,
        "aleatoric": (entropy(near), entropy(far)),
        "novelty": confidence,
    }
    return Said(arm, near, doubts, variance, scale, seconds)


def means_of(drawn: bc.Task, fit: Fit) -> tuple[Tensor, Tensor]:
    """Logits (M, C) and (K, C) at the mean weights, float64."""
    program, posterior = fit.posterior.logits.program, fit.posterior
    far = drawn.query_features[:0] if drawn.ood_features is None else drawn.ood_features
    near, outside = (
        program.logits(posterior.weights.mean, posterior.as_inputs(each)).double()
        for each in (drawn.query_features, far)
    )
    return near, outside


def problem_of(drawn: bc.Task, variance: float) -> Problem:
    kind = find_model("linear_probe")
    context = task_context(kind, drawn)
    return Problem(
        kind, context, inputs_of(kind, context, drawn.support_rows), drawn.support_labels, variance
    )


def _novelty(mean: Tensor, variance: Tensor) -> Tensor:
    return (variance - mean).gather(1, mean.argmax(-1, keepdim=True))[:, 0]
