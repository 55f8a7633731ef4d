from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian import ClassBlock
from bayes_clip.gaussian.point import Point
from bayes_clip.predictive import closed_form, entropy, entropy_split, find_predictive, monte_carlo

seeds = st.integers(0, 1000)


def random_moments(seed: int, rows: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mean = 3 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return mean, 4 * torch.rand(rows, classes, generator=generator, dtype=torch.float64)


def belief(variance: float = 0.5) -> ClassBlock:
    problem = small_problem(classes=4, variance=variance)
    return ClassBlock.from_prior(problem.mean, problem.variance)


DESIGN = small_problem(classes=4, rows=7).design


def test_without_variance_it_is_the_softmax() -> None:
    mean, variance = random_moments(0)
    assert_near(closed_form(mean, torch.zeros_like(variance)), mean.softmax(-1))


@settings(deadline=None)
@given(seed=seeds, offset=st.floats(-100, 100))
def test_rows_sum_to_one_and_a_common_offset_changes_nothing(seed: int, offset: float) -> None:
    mean, variance = random_moments(seed)
    probabilities = closed_form(mean, variance)
    assert_near(probabilities.sum(-1), torch.ones(len(mean)).double())
    assert_near(closed_form(mean + offset, variance), probabilities)


@settings(deadline=None)
@given(seed=seeds, order=st.permutations(range(4)))
def test_permuting_classes_permutes_probabilities(seed: int, order: list[int]) -> None:
    mean, variance = random_moments(seed)
    assert_near(closed_form(mean[:, order], variance[:, order]), closed_form(mean, variance)[:, order])


@settings(deadline=None)
@given(seed=seeds, variance=st.floats(0, 1000))
def test_a_common_variance_flattens_and_keeps_the_order_of_the_classes(seed: int, variance: float) -> None:
    mean, _ = random_moments(seed)
    probabilities = closed_form(mean, torch.full_like(mean, variance))
    assert torch.equal(probabilities.argmax(-1), mean.argmax(-1))
    assert (probabilities.amax(-1) <= mean.softmax(-1).amax(-1) + 1e-12).all()


@settings(deadline=None)
@given(difference=st.floats(-5, 5), first=st.floats(0, 4), second=st.floats(0, 4))
def test_two_classes_against_gauss_hermite_quadrature(difference: float, first: float, second: float) -> None:
    """The logistic-Gaussian integral itself; the π/8 form is within 0.02 of it."""
    nodes, weights = map(torch.tensor, hermegauss(100))
    spread = (first + second) ** 0.5
    wanted = float((weights * (difference + spread * nodes).sigmoid()).sum() / weights.sum())
    mean = torch.tensor([[difference, 0.0]], dtype=torch.float64)
    variance = torch.tensor([[first, second]], dtype=torch.float64)
    assert abs(float(closed_form(mean, variance)[0, 0]) - wanted) < 0.02


def test_four_classes_against_many_draws() -> None:
    """Unequal variances up to 4: within 0.06 of the average softmax, and closer than plug-in."""
    mean, variance = random_moments(1, rows=40)
    noise = torch.randn(20_000, *mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = (mean + variance.sqrt() * noise).softmax(-1).mean(0)
    error = (closed_form(mean, variance) - wanted).abs()
    plug_in_error = (mean.softmax(-1) - wanted).abs()
    assert float(error.max()) < 0.06
    assert float(error.mean()) < float(plug_in_error.mean()) / 3


def test_chunks_do_not_matter() -> None:
    mean, variance = random_moments(2, rows=9)
    assert torch.equal(closed_form(mean, variance, budget=1), closed_form(mean, variance))
    whole = monte_carlo(belief(), DESIGN), *entropy_split(belief(), DESIGN)
    parts = monte_carlo(belief(), DESIGN, budget=1), *entropy_split(belief(), DESIGN, budget=1)
    for once, part in zip(whole, parts, strict=True):
        assert_near(part, once)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(0, 6), min_size=1, max_size=9),
    budget=st.sampled_from([1, 2000, 2**27]),
    draws=st.integers(1, 9),
)
def test_what_is_drawn_for_a_row_depends_on_it_alone(rows: list[int], budget: int, draws: int) -> None:
    """Whatever rows are beside it, in whatever order, and however they are cut into chunks."""
    known = belief()
    whole = monte_carlo(known, DESIGN, draws), *entropy_split(known, DESIGN, draws)
    part = DESIGN[rows]
    found = monte_carlo(known, part, draws, budget), *entropy_split(known, part, draws, budget)
    for some, everything in zip(found, whole, strict=True):
        assert_near(some, everything[rows])


def test_rows_have_draws_of_their_own() -> None:
    """One draw for each of 300 rows of equal length along one feature: as many different answers."""
    angle = torch.linspace(0, 1.5, 300, dtype=torch.float64)
    rows = torch.stack([angle.cos(), angle.sin()], dim=-1)
    still = ClassBlock(torch.zeros(4, 2).double(), torch.eye(2).double().expand(4, -1, -1))
    drawn = monte_carlo(still, rows, draws=1)
    assert len(drawn.round(decimals=6).unique(dim=0)) > 80, "of at most 97 shades of direction"
    assert_near(drawn.mean(0), torch.full((4,), 0.25).double(), 0.1)


def test_monte_carlo_agrees_with_the_closed_form_and_repeats() -> None:
    probabilities = monte_carlo(belief(), DESIGN, draws=4000)
    assert torch.equal(probabilities, monte_carlo(belief(), DESIGN, draws=4000))
    mean, variance = belief().logit_moments(DESIGN)
    assert_near(probabilities, closed_form(mean, variance), 0.06)
    assert_near(probabilities.sum(-1), torch.ones(7).double())


def test_uncertainty_splits_the_entropy_of_the_average_softmax() -> None:
    aleatoric, epistemic = entropy_split(belief(), DESIGN, draws=64)
    averaged = monte_carlo(belief(), DESIGN, draws=64)  # the same draws
    assert_near(aleatoric + epistemic, entropy(averaged))
    assert (aleatoric > 0).all() and (epistemic > 0).all()


def test_a_point_has_no_epistemic_uncertainty_and_a_wide_belief_has_more() -> None:
    point = Point(belief().mean)
    aleatoric, epistemic = entropy_split(point, DESIGN)
    assert_near(epistemic, torch.zeros(7).double())
    assert_near(aleatoric, entropy((DESIGN @ point.mean.mT).softmax(-1)))
    narrow, wide = (entropy_split(belief(v), DESIGN, draws=512)[1].mean() for v in (0.01, 1.0))
    assert float(narrow) < float(wide) / 5


def test_entropy_is_in_nats_and_finite_for_certainty() -> None:
    assert_near(entropy(torch.full((1, 4), 0.25).double()), torch.tensor([4.0]).double().log())
    assert float(entropy(torch.tensor([1.0, 0.0]))) == 0


def test_a_misspelled_predictive_is_refused() -> None:
    assert find_predictive("auto") == "auto"
    with pytest.raises(UserError, match=r"predictive 'closed-form': .*Did you mean 'closed_form'"):
        find_predictive("closed-form")
