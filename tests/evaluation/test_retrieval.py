"""Recall against every order of the ties, rankings against draws by hand, and other galleries."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pyro.distributions import Normal
from small_problems import EXACT, tiny_task
from torch import Tensor

import bayes_clip as bc
from bayes_clip.evaluation.retrieval import (
    Ranking,
    first_ranks,
    hit_chances,
    over_gallery,
    ranking,
    recall_at,
    similarity_draws,
)
from bayes_clip.model import AdapterModel


class Turned(AdapterModel):
    """Images through one matrix that all texts share."""

    def prior(self) -> dict[str, Normal]:
        width = self.text_features.shape[1]
        mean = torch.eye(width).to(self.text_features)
        return {"map": Normal(mean, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs @ weights["map"].mT @ self.text_features.mT


@pytest.fixture(scope="module")
def posterior() -> bc.Posterior:
    settings = bc.FitSettings(engine="laplace", prior_variance=0.05, dtype="float64")
    return bc.fit(tiny_task(), settings, program=Turned).posterior


def by_all_orders(values: np.ndarray, relevant: np.ndarray, k: int) -> tuple[float, float]:
    """Chance of a hit and expected first rank over all orders that agree with the values."""
    orders = [
        order
        for order in permutations(range(len(values)))
        if all(values[one] >= values[next_] for one, next_ in pairwise(order))
    ]
    first = np.array([min(order.index(item) for item in np.flatnonzero(relevant)) for order in orders]) + 1
    return float((first <= k).mean()), float(first.mean())


few_levels = arrays(np.int64, 5, elements=st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(few_levels, arrays(np.bool_, 5).filter(np.any), st.integers(1, 6))
def test_ties_are_broken_at_random(values: np.ndarray, relevant: np.ndarray, k: int) -> None:
    chance, rank = by_all_orders(values, relevant, k)
    assert hit_chances(values[None], relevant[None], k)[0] == pytest.approx(chance, abs=EXACT)
    assert first_ranks(values[None], relevant[None])[0] == pytest.approx(rank, abs=EXACT)


def test_captions_that_the_encoder_cannot_tell_apart_do_not_score_by_their_place() -> None:
    collapsed, own = np.zeros((4, 4)), np.eye(4, dtype=bool)
    assert recall_at(collapsed, own, 1) == pytest.approx(0.25, abs=EXACT)
    assert recall_at(collapsed, own, 3) == pytest.approx(0.75, abs=EXACT)


def test_a_ranking_is_the_average_over_the_draws() -> None:
    generator = np.random.default_rng(0)
    draws, own = 3 * generator.normal(size=(7, 6, 6)), np.eye(6, dtype=bool)
    found = ranking(draws, own, tops=(1, 2))
    exponent = np.exp(draws)
    average = (exponent / exponent.sum(-1, keepdims=True)).mean(0)
    assert np.allclose(found.probabilities, average, atol=EXACT)
    ranks = np.array([[(row > row[query]).sum() + 1 for query, row in enumerate(draw)] for draw in draws])
    assert np.allclose(found.chance[2], (ranks <= 2).mean(0), atol=EXACT)
    assert np.allclose(found.rank, np.median(ranks, axis=0), atol=EXACT)
    assert (found.rank_lower <= found.rank).all() and (found.rank <= found.rank_upper).all()
    best_two = np.sort(average, axis=1)[:, -2:].sum(1)
    assert np.allclose(found.stated(2), best_two, atol=EXACT)
    assert found.nll() == pytest.approx(-np.log(np.diag(average)).mean(), abs=EXACT)
    assert found.stated(6) == pytest.approx(1.0)


def test_what_is_stated_comes_true_where_the_probabilities_are_right() -> None:
    """Matches drawn from the softmax of the similarities: stated and true recall agree within noise."""
    generator = np.random.default_rng(1)
    values = 2 * generator.normal(size=(4000, 12))
    chances = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    match = (chances.cumsum(1) < generator.random((4000, 1))).sum(1).clip(max=11)
    found = ranking([values], np.arange(12) == match[:, None], tops=(3,))
    error = (found.stated(3) * (1 - found.stated(3))).sum() ** 0.5 / 4000
    assert abs(found.stated(3).mean() - found.recall(3)) < 4 * error
    assert found.expected_recall(3) == found.recall(3)  # one draw


def test_the_same_weights_serve_another_gallery(posterior: bc.Posterior) -> None:
    task = tiny_task()
    texts = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    other = over_gallery(posterior, texts, [f"text {index}" for index in range(5)])
    rows = task.query_features.double()
    (mean,) = similarity_draws(other, rows, covariance_scale=0.0)
    unit = torch.nn.functional.normalize(texts.double(), dim=-1)
    wanted = task.logit_scale * rows @ posterior.weights.mean.reshape(6, 6).mT @ unit.mT
    assert np.allclose(mean, wanted.numpy(), atol=EXACT)
    assert other.predict(task.query_features).probabilities.shape == (len(rows), 5)


def test_draws_have_the_posterior_s_moments_and_are_the_same_at_every_call(posterior: bc.Posterior) -> None:
    rows = tiny_task().query_features[:4].double()
    draws = np.stack(list(similarity_draws(posterior, rows, draws=2000)))
    again = next(iter(similarity_draws(posterior, rows, draws=2000)))
    assert (draws[0] == again).all()
    # The program's own logits carry an offset that its softmax does not see: compare differences of classes.
    moments = posterior.predict(tiny_task().query_features[:4])
    centred = draws - draws.mean(-1, keepdims=True)
    assert np.allclose(centred.var(0), moments.logit_variance.numpy(), rtol=0.2)
    quarter = np.stack(list(similarity_draws(posterior, rows, draws=2000, covariance_scale=0.25)))
    assert np.allclose(quarter.var(0), 0.25 * draws.var(0), rtol=1e-6)


def test_a_point_has_one_draw_and_its_expected_recall_is_its_recall() -> None:
    task = tiny_task()
    point = bc.fit(task, bc.FitSettings(engine="map", prior_variance=0.05), program=Turned).posterior
    draws = list(similarity_draws(point, task.query_features))
    own = np.arange(task.num_classes) == task.query_labels.numpy()[:, None]
    found: Ranking = ranking(draws, own, tops=(1,))
    assert len(draws) == 1
    assert found.expected_recall(1) == found.recall(1)


def test_a_program_that_ships_and_adapts_the_image_side_ranks_other_texts_at_once() -> None:
    task = tiny_task()
    adapter = bc.fit(task, bc.FitSettings(model="clip_adapter_no_relu", engine="zero_shot")).posterior
    texts = torch.randn(5, 6, generator=torch.Generator().manual_seed(4))
    (found,) = similarity_draws(over_gallery(adapter, texts, list("abcde")), task.query_features)
    unit = torch.nn.functional.normalize(texts, dim=-1)
    assert np.allclose(found, (task.logit_scale * task.query_features @ unit.mT).numpy(), atol=1e-4)


@pytest.mark.parametrize("texts", [3, 5])
def test_weights_that_belong_to_classes_are_refused_even_for_as_many_texts(texts: int) -> None:
    probe = bc.fit(tiny_task(), bc.FitSettings(engine="map", prior_variance=0.05)).posterior
    with pytest.raises(bc.UserError, match="weights for every class"):
        over_gallery(probe, torch.randn(texts, 6), [f"text {index}" for index in range(texts)])


def test_bad_shapes_are_named(posterior: bc.Posterior) -> None:
    with pytest.raises(ValueError, match="query 1 has no relevant item"):
        hit_chances(np.zeros((2, 3)), np.array([[True, False, False], [False, False, False]]), 1)
    with pytest.raises(ValueError, match=r"\(Q, G\)"):
        recall_at(np.zeros((2, 3)), np.ones((2, 2)), 1)
    with pytest.raises(ValueError, match="at least one draw"):
        ranking([], np.eye(2))
    with pytest.raises(bc.UserError, match="at least two"):
        over_gallery(posterior, torch.randn(1, 6), ["one"])
