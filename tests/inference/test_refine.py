from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_twins import jacobian, mode_and_covariance, softmax_curvature
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.gaussian import Full
from bayes_clip.inference import kalman
from bayes_clip.inference.kalman import KalmanState, Site
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.refine import Refined, groups, joined_batch, joined_site, refine
from bayes_clip.inference.rules import RULES, Rule
from bayes_clip.observation import SOFTMAX, Gaussian, Observation

FAMILIES = ("class_block", "full")
ITERATED = RULES["iterated"]


def learned(
    problem: SmallProblem,
    family: str,
    rule: Rule = ITERATED,
    order: Tensor | None = None,
    size: int = 1,
    observation: Observation = SOFTMAX,
) -> tuple[KalmanState, list[Batch], list[Site]]:
    """The problem's rows in batches of `size`, with their sites."""
    rows = torch.arange(len(problem.labels)) if order is None else order
    data = [Batch(problem.design[part], problem.labels[part]) for part in rows.split(size)]
    state, sites = kalman.init(problem.mean, problem.variance, family), []
    for batch in data:
        state, _, site = kalman.put_in(state, batch, rule, observation)
        sites.append(site)
    return state, data, sites


def again(found: Refined, rule: Rule = ITERATED, sweeps: int = 1, rows: int = 32) -> Refined:
    return refine(found.state, found.data, found.sites, rule, sweeps=sweeps, rows=rows)


def naive_sweep(problem: SmallProblem, sites: list[Site], size: int) -> tuple[Tensor, Tensor]:
    """One sweep in dense information form over groups of rows, each at its mode; `sites` are single rows'."""
    classes = len(problem.mean)
    rows = jacobian(problem.design, classes)  # (N, C, P)
    precision = torch.diag(1 / problem.variance.reshape(-1))
    information = problem.mean.reshape(-1) / problem.variance.reshape(-1)
    factors = [
        (row.mT @ site.matrix @ row, row.mT @ site.linear[0]) for row, site in zip(rows, sites, strict=True)
    ]
    for start in range(0, len(rows), size):
        picked = range(start, min(start + size, len(rows)))
        others = [factor for index, factor in enumerate(factors) if index not in picked]
        cavity = precision + sum(matrix for matrix, _ in others)
        pull = information + sum(vector for _, vector in others)
        weights, own, target = torch.linalg.solve(cavity, pull), rows[picked], problem.labels[picked]
        for _ in range(30):
            p = (own @ weights).softmax(-1)
            residual = torch.eye(classes, dtype=p.dtype)[target] - p
            curvature = torch.einsum("nci,ncd,ndj->ij", own, softmax_curvature(p), own)
            gradient = torch.einsum("nci,nc->i", own, residual) + pull - cavity @ weights
            weights = weights + torch.linalg.solve(cavity + curvature, gradient)
        for index, row in zip(picked, own, strict=True):
            p = (row @ weights).softmax(-1)
            matrix = torch.diag(p) - torch.outer(p, p)
            residual = torch.eye(classes, dtype=p.dtype)[problem.labels[index]] - p
            factors[index] = (row.mT @ matrix @ row, row.mT @ (matrix @ row @ weights + residual))
    precision = precision + sum(matrix for matrix, _ in factors)
    covariance = torch.linalg.inv(precision)
    return covariance @ (information + sum(vector for _, vector in factors)), covariance


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_sweep_is_the_dense_one_in_information_form(size: int) -> None:
    problem = small_problem(rows=7)
    state, data, sites = learned(problem, "full")
    found = refine(state, data, sites, ITERATED, rows=size)
    mean, covariance = naive_sweep(problem, sites, size)
    assert isinstance(found.state.belief, Full)
    assert_near(found.state.belief.mean.reshape(-1), mean)
    assert_near(found.state.belief.covariance, covariance)
    assert found.state.steps == 7 and len(found.infos) == len(found.sites) == len(found.data)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rule", ["expected", "iterated", "moment_matched"])
def test_joined_sites_say_what_the_single_ones_said(family: str, rule: str) -> None:
    """All taken out at once, as one joined batch, leaves the prior."""
    problem = small_problem(rows=5)
    state, data, sites = learned(problem, family, RULES[rule], size=2)
    back = kalman.take_out(state, joined_batch(data), joined_site(sites))
    prior = kalman.init(problem.mean, problem.variance, family).belief
    assert_near(back.belief.mean, prior.mean)
    assert_near(back.belief.covariance, prior.covariance)


@pytest.mark.parametrize("family", FAMILIES)
def test_gaussian_observations_are_counted_once_however_often_they_are_refined(family: str) -> None:
    problem = small_problem(rows=9)
    noise = Gaussian(torch.tensor(0.3, dtype=torch.float64))
    seen = SmallProblem(problem.design, problem.logits + 1.0, problem.mean, problem.variance)
    state, data, sites = learned(seen, family, observation=noise)
    for sweeps, rows in ((1, 4), (3, 32), (2, 1)):
        found = refine(state, data, sites, ITERATED, noise, sweeps, rows)
        assert_near(found.state.belief.mean, state.belief.mean)
        assert_near(found.state.belief.covariance, state.belief.covariance)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_rows_at_once_are_the_batch_whatever_came_before(family: str) -> None:
    problem = small_problem(rows=12)
    whole, _ = kalman.update(
        kalman.init(problem.mean, problem.variance, family), Batch(problem.design, problem.labels), ITERATED
    )
    for order in (torch.arange(12), torch.arange(12).flip(0)):
        found = refine(*learned(problem, family, order=order), ITERATED)
        assert_near(found.state.belief.mean, whole.belief.mean)
        assert_near(found.state.belief.covariance, whole.belief.covariance)
        assert_near(found.state.belief.mean, mode_and_covariance(problem)[0])
        twice = again(found, sweeps=2)
        assert_near(twice.state.belief.covariance, whole.belief.covariance)


def test_later_labels_join_the_group_that_is_not_full() -> None:
    problem = small_problem(rows=11)
    state, data, sites = learned(problem, "class_block")
    found = refine(state, data[:], sites, ITERATED, rows=4)
    assert [len(batch.labels) for batch in found.data] == [4, 4, 3]
    more = Batch(problem.design[:1], problem.labels[:1])
    state, _, site = kalman.put_in(found.state, more, ITERATED)
    later = refine(state, [*found.data, more], [*found.sites, site], ITERATED, rows=4)
    assert [len(batch.labels) for batch in later.data] == [4, 4, 4]


def by_class(problem: SmallProblem) -> Tensor:
    return torch.argsort(problem.labels, stable=True)


@pytest.mark.parametrize("rule", ["expected", "iterated"])
def test_one_label_at_a_time_class_by_class_is_mended_by_a_sweep(rule: str) -> None:
    """Distance of the probabilities to the batch's, 8 classes in class order under a wide prior."""
    problem = small_problem(classes=8, features=16, rows=64, variance=20.0, isotropic=True)
    prior = kalman.init(problem.mean, problem.variance, "class_block")
    whole, _ = kalman.update(prior, Batch(problem.design, problem.labels), RULES[rule])
    wanted = (problem.design @ whole.belief.mean.mT).softmax(-1)

    def distance(state: KalmanState) -> float:
        return float(((problem.design @ state.belief.mean.mT).softmax(-1) - wanted).abs().sum(-1).mean())

    state, data, sites = learned(problem, "class_block", RULES[rule], by_class(problem))
    found = refine(state, data, sites, RULES[rule])
    assert distance(found.state) < distance(state) / 3
    assert distance(again(found, RULES[rule]).state) < distance(found.state)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=20), st.integers(1, 64))
def test_groups_hold_every_batch_once_and_no_more_rows_than_asked_for(sizes: list[int], rows: int) -> None:
    parts = groups(sizes, rows)
    assert [size for part in parts for size in sizes[part]] == sizes
    for part in parts:
        assert sum(sizes[part]) <= rows or part.stop - part.start == 1
    for before, after in pairwise(parts):
        assert sum(sizes[before]) + sizes[after][0] > rows


def test_joined_batches_keep_their_offsets() -> None:
    problem = small_problem(rows=4)
    bare = Batch(problem.design[:1], problem.labels[:1])
    offset = Batch(problem.design[1:], problem.labels[1:], problem.logits[1:])
    whole = joined_batch([bare, offset])
    assert whole.offset is not None
    assert_near(whole.offset[0], torch.zeros(3, dtype=torch.float64))
    assert_near(whole.offset[1:], problem.logits[1:])
    assert joined_batch([bare, bare]).offset is None
