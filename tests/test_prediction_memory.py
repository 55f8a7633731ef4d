"""No prediction of any family makes a tensor beyond its budget of memory."""

from __future__ import annotations

import pytest
import torch
from dense_twins import plain_step
from largest_tensor import LargestTensor
from small_problems import assert_near, tiny_task

from bayes_clip.gaussian import FAMILIES
from bayes_clip.gaussian.point import Draws, LowRank, Point
from bayes_clip.inference.engines import Weights
from bayes_clip.model import Context, find_model
from bayes_clip.posterior import Posterior, Source
from bayes_clip.predictive import SPLIT_DRAWS
from bayes_clip.settings import FitSettings

TASK = tiny_task(12, 8, 2)
MEAN = TASK.text_features.double()
ROWS, BUDGET = 400, 2**16
GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(ROWS, 8, generator=GENERATOR, dtype=torch.float64)


def learned(family: str) -> Weights:
    belief = FAMILIES[family].from_prior(MEAN, torch.full_like(MEAN, 0.01))
    return plain_step(belief, TASK.logit_scale * TASK.support_features.double(), TASK.support_labels)


WEIGHTS: dict[str, Weights] = {
    **{family: learned(family) for family in FAMILIES},
    "guide": LowRank(
        MEAN,
        torch.full_like(MEAN, 0.01),
        torch.randn(12, 8, 5, generator=GENERATOR, dtype=torch.float64) / 10,
    ),
    "draws": Draws(MEAN + torch.randn(300, 12, 8, generator=GENERATOR, dtype=torch.float64) / 10),
    "point": Point(MEAN),
}


def posterior(kind: str, predictive: str = "closed_form") -> Posterior:
    settings = FitSettings(prior_variance=0.01, dtype="float64", predictive=predictive)
    model = find_model("linear_probe")(Context(MEAN, TASK.class_names, TASK.logit_scale), 0.01)
    return Posterior(model, WEIGHTS[kind], Source(settings, "tiny", None, 2, 0, 24, 0.01, 1.0))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_no_tensor_is_larger_than_the_budget(kind: str) -> None:
    """The outputs (N, C) fit into it here, the draws (S, N, C) and the pairs (N, C, C) do not."""
    known = posterior(kind, "monte_carlo" if kind == "class_block" else "closed_form")
    assert 8 * ROWS * 12 < BUDGET < 8 * ROWS * 12 * 12 < 8 * SPLIT_DRAWS * ROWS * 12
    with LargestTensor() as seen:
        known.predict(FEATURES, BUDGET)
    assert seen.bytes <= BUDGET


@pytest.mark.parametrize("kind", WEIGHTS)
def test_what_is_said_of_a_row_depends_on_it_alone(kind: str) -> None:
    """Every field, in float64: alone, in another order, and at any budget."""
    known = posterior(kind, "monte_carlo" if kind in ("full", "diagonal") else "closed_form")
    features = FEATURES[:9]
    whole = known.predict(features)
    order = torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])
    for rows, budget in ((order, 2**27), (order[:3], 1), (torch.tensor([7]), 2**27)):
        part = known.predict(features[rows], budget)
        for name, value in vars(part).items():
            assert_near(value, getattr(whole, name)[rows])


@pytest.mark.parametrize("kind", WEIGHTS)
def test_of_no_rows_nothing_is_said(kind: str) -> None:
    for predictive in ("closed_form", "monte_carlo"):
        said = posterior(kind, predictive).predict(FEATURES[:0])
        assert said.probabilities.shape == said.logit_variance.shape == (0, 12)
        assert said.epistemic.shape == (0,)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_moments_are_the_same_at_any_budget(kind: str) -> None:
    known = posterior(kind).logits
    rows = torch.nn.functional.normalize(FEATURES[:50], dim=-1)
    whole = known.logit_moments(rows)
    predicted = known.predicted_logits(rows)
    assert_near(predicted.mean, whole[0])
    assert_near(predicted.variance, whole[1])
    for once, part in zip(whole, known.logit_moments(rows, budget=1), strict=True):
        assert_near(part, once)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_draws_have_the_moments_of_the_logits(kind: str) -> None:
    """4,000 antithetic draws of three rows."""
    known = posterior(kind).logits
    rows = torch.nn.functional.normalize(FEATURES[:3], dim=-1)
    predicted = known.predicted_logits(rows)
    blocks = predicted.streamed(torch.tensor([1, 300, 900]), 4_000, 2**16)
    total, squares = torch.zeros(2, *predicted.mean.shape, dtype=torch.float64)
    for block in blocks:
        total += (block - predicted.mean).sum(0)
        squares += (block - predicted.mean).square().sum(0)
    deviation = predicted.variance.sqrt()
    assert float((total / 4_000).abs().max()) <= 0.1 * float(deviation.max())
    assert_near(squares / 4_000, predicted.variance, 0.1)


def test_many_numbers_are_kept_in_the_dtype_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = FitSettings(prior_variance=0.01, predictive="closed_form")
    model = find_model("linear_probe")(Context(MEAN.float(), TASK.class_names, TASK.logit_scale), 0.01)
    weights = FAMILIES["class_block"].from_prior(MEAN.float(), torch.full_like(MEAN, 0.01).float())
    known = Posterior(model, weights, Source(settings, "tiny", None, 2, 0, 24, 0.01, 1.0))
    exact = known.predict(FEATURES[:50]).probabilities
    monkeypatch.setattr("bayes_clip.posterior.MANY_NUMBERS", 599)
    stored = known.predict(FEATURES[:50]).probabilities
    assert exact.dtype == torch.float64 and stored.dtype == torch.float32
    assert_near(stored.double(), exact, 1e-7)
    assert float(stored.min()) >= torch.finfo(torch.float32).tiny
