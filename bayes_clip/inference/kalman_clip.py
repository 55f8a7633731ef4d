"""`kalman_clip`: the adapter filter of Abdi, Sun & Pan (arXiv 2511.01694), as far as it is known.

Known from its abstract and reviews: a Gaussian prior on the adapter's weights carried from minibatch to
minibatch; image-text pairs as data; the observation is the cosine of each image with the text of its own
class, the target is 1; Gaussian noise R, adapted by exponential averaging of squared innovations; a
regulation by Mahalanobis distance.

Guesses, since neither code nor equations were to be had:
- the adapter is the class weights w_c, one text feature per class, normalised to unit length after each step
  (a cosine says nothing of their length), with the covariance left as it is;
- the covariance is diagonal and keeps the marginal variances of the exact step, as in the same authors' LoKO
  (arXiv 2410.11551), whose state is likewise constant;
- R is one number, R ← 0.9 R + 0.1 mean ν², from the innovation ν = 1 − cos *before* the step and used in that
  step; it begins as the first batch's mean ν². The factor is the one that KOALA++ states for its own R;
- a pair beyond the 0.99 quantile of chi-square (one degree of freedom) is not dropped: its noise grows until
  it lies on that quantile;
- probabilities are softmax(s cos), averaged or not, like any other classifier's here.

What follows from the published part, and tests/inference/test_kalman_clip.py shows: there are no negatives,
so that an image moves its own class alone and raising all cosines together looks as good as separating the
classes; cosines of matched pairs lie near 0.3, the target is out of reach, and R absorbs that bias as noise,
so that no pair ever reaches the gate.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import Diagonal
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import STATIC, KalmanState, StepInfo
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import plain
from bayes_clip.observation import SOFTMAX, Gaussian, Observation, Softmax
from bayes_clip.state_space import Dynamics, StateSpace

NAME = "kalman_clip"
FORGETTING = 0.9
GATE = 6.634897  # 0.99 quantile of chi-square with one degree of freedom


def update(
    state: KalmanState,
    batch: Batch,
    state_space: StateSpace | Dynamics = STATIC,
    observation: Observation = SOFTMAX,
) -> tuple[KalmanState, StepInfo]:
    """`kalman.update` with paired cosines observed instead of labels; b rows take O(C D b²) time.

    The batch is linearised once, at the predicted weights. What the info says of scores, innovations and
    evidence is said of the cosines, not of the labels.

    Raises:
        UserError: a covariance that is not diagonal, no linear head, or class weights of length 0.
    """
    belief = kalman.propagated(state, state_space)
    if not isinstance(belief, Diagonal):
        raise UserError(f"--rule {NAME}: keeps a diagonal covariance only; use --covariance diagonal")
    if batch.design.ndim != 2 or batch.offset is not None or not isinstance(observation, Softmax):
        raise UserError(f"--rule {NAME}: needs a linear head and class labels, which give cosines")
    cosine, jacobian = paired_cosines(belief.mean, batch.design, batch.labels)
    flat = Diagonal(belief.mean.reshape(-1), belief.variance.reshape(-1))
    innovation = (1 - cosine).double()
    noise = adapted(state.noise, innovation)
    gated = gated_noise(noise, innovation, (jacobian.square() @ flat.variance).double())
    observed = Batch(jacobian[:, None], torch.ones_like(cosine), (cosine - jacobian @ flat.mean)[:, None])
    prior = state.prior_mean.reshape(-1), state.prior_variance.reshape(-1)
    moved, info = kalman.update(
        KalmanState(flat, *prior, state.steps), observed, plain, STATIC, Gaussian(gated[:, None])
    )
    weights = torch.nn.functional.normalize(moved.belief.mean.reshape(belief.mean.shape), dim=-1)
    assert isinstance(moved.belief, Diagonal)
    after = Diagonal(weights, moved.belief.variance.reshape(belief.mean.shape))
    return replace(state, belief=after, steps=moved.steps, noise=noise), info


def paired_cosines(weights: Tensor, design: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine of each row with its own class's weights, (b,), and its Jacobian in all weights, (b, C D).

    ∂ cos(x, w)/∂w = (x̂ − cos ŵ)/|w| for the row's own class, zero elsewhere; weights (C, D), design (b, D).

    Raises:
        UserError: class weights of length 0, which have no direction.
    """
    length = weights.norm(dim=-1)
    if bool((length == 0).any()):
        raise UserError(
            f"--rule {NAME}: needs text features; a class without them has no cosine to begin with"
        )
    rows = torch.nn.functional.normalize(design, dim=-1)
    own = (weights / length[:, None])[labels]
    cosine = (rows * own).sum(-1)
    slope = (rows - cosine[:, None] * own) / length[labels][:, None]
    jacobian = slope.new_zeros(len(labels), *weights.shape)
    jacobian[torch.arange(len(labels), device=labels.device), labels] = slope
    return cosine, jacobian.flatten(1)


def adapted(noise: Tensor | None, innovation: Tensor) -> Tensor:
    """R after a batch with innovations (b,), a scalar; None before the first."""
    seen = innovation.square().mean()
    return seen if noise is None else FORGETTING * noise + (1 - FORGETTING) * seen


def gated_noise(noise: Tensor, innovation: Tensor, predicted: Tensor) -> Tensor:
    """R of each pair (b,): larger where ν² / (H P Hᵀ + R) would exceed the gate; `predicted` H P Hᵀ (b,)."""
    return torch.maximum(noise, innovation.square() / GATE - predicted)
