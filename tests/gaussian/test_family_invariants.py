"""What no family may break, whatever the data: positive variances, no widening, no favoured class."""

from __future__ import annotations

import pytest
import torch
from dense_twins import plain_step
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.gaussian import FAMILIES, Belief
from bayes_clip.observation import SOFTMAX

FAMILY_NAMES = sorted(FAMILIES)
STEPS = 200

problems = st.builds(
    small_problem,
    classes=st.integers(2, 4),
    features=st.integers(1, 6),
    rows=st.integers(1, 9),
    seed=st.integers(0, 2**20),
    variance=st.floats(1e-3, 100.0),
    isotropic=st.just(True),
)
few = settings(max_examples=25, deadline=None)


def learned(family: str, problem: SmallProblem, batch: int = 3) -> Belief:
    belief = FAMILIES[family].from_prior(problem.mean, problem.variance)
    for rows in torch.arange(len(problem.labels)).split(batch):
        belief = plain_step(belief, problem.design[rows], problem.labels[rows])
    return belief


@pytest.mark.parametrize("family", FAMILY_NAMES)
@few
@given(problem=problems)
def test_variances_are_positive_and_never_wider_than_the_prior(family: str, problem: SmallProblem) -> None:
    """In float64 to rounding; in float32 they are finite and not negative."""
    elsewhere = small_problem(*problem.mean.shape, rows=5, seed=1).design
    _, variance = learned(family, problem).logit_moments(elsewhere)
    prior = elsewhere.square() @ problem.variance.mT
    assert bool((variance >= 0).all())
    assert bool((variance <= prior * (1 + 1e-9)).all())
    single = SmallProblem(
        problem.design.float(), problem.labels, problem.mean.float(), problem.variance.float()
    )
    mean, variance = learned(family, single).logit_moments(elsewhere.float())
    assert bool((variance >= 0).all()) and bool(mean.isfinite().all()) and bool(variance.isfinite().all())


@pytest.mark.parametrize("family", FAMILY_NAMES)
@few
@given(problem=problems, seed=st.integers(0, 2**20))
def test_the_order_of_the_classes_is_only_a_name(family: str, problem: SmallProblem, seed: int) -> None:
    classes = len(problem.mean)
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    renamed = SmallProblem(
        problem.design, order.argsort()[problem.labels], problem.mean[order], problem.variance[order]
    )
    elsewhere = small_problem(*problem.mean.shape, rows=5, seed=1).design
    mean, variance = learned(family, problem).logit_moments(elsewhere)
    other_mean, other_variance = learned(family, renamed).logit_moments(elsewhere)
    assert_near(other_mean, mean[:, order], 1e-7)
    assert_near(other_variance, variance[:, order], 1e-7)


def after_a_long_stream(family: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Moments of 50 rows' logits after 200 batches; features differ a thousandfold in length, s² v = 300.

    Sites are those of the true logits, so that both precisions are given the same ones.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.logspace(0, -3, 8, dtype=torch.float64)
    lengths *= 10 / lengths.norm()
    mean, truth, elsewhere = random(3, 8), 3**0.5 * random(3, 8), (random(50, 8) * lengths).to(dtype)
    belief = FAMILIES[family].from_prior(mean.to(dtype), torch.full_like(mean, 3.0).to(dtype))
    for _ in range(STEPS):
        design = random(4, 8) * lengths
        logits = design @ truth.mT
        labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        projection, curvature = belief.project(design.to(dtype)), SOFTMAX.curvature(logits)
        residual = SOFTMAX.target(labels, logits) - SOFTMAX.response(logits)
        target = residual + curvature.times(logits - projection.logits.double())
        gram = projection.gram.double()
        dual = gram.newton(curvature, torch.zeros_like(logits), target)
        belief = belief.condition(projection, dual.to(dtype), gram.downdate(curvature).to(dtype))
    moments = belief.logit_moments(elsewhere)
    return moments[0].double(), moments[1].double()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_float32_keeps_to_float64_over_hundreds_of_badly_scaled_batches(family: str) -> None:
    mean, variance = after_a_long_stream(family, torch.float64)
    single_mean, single_variance = after_a_long_stream(family, torch.float32)
    assert float(single_variance.min()) > 0
    assert float((single_variance / variance - 1).abs().max()) < 1e-3
    assert float((single_mean - mean).abs().max()) < 1e-2 * float(variance.min().sqrt())
