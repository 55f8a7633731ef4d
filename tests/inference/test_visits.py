"""Blocks of labels and visits of the covariance change nothing but rounding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from small_problems import assert_near, small_problem, tiny_task

from bayes_clip.fitting import fit
from bayes_clip.gaussian.gram import BlockGram
from bayes_clip.gaussian.row_gram import RowGram
from bayes_clip.inference import kalman
from bayes_clip.inference.batches import rows_of_gram
from bayes_clip.inference.kalman import Batch, KalmanState, StepInfo
from bayes_clip.inference.one_by_one import put_in_one_by_one
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.visits import visits
from bayes_clip.observation import SOFTMAX, Bernoulli, Gaussian
from bayes_clip.settings import FitSettings

PROBLEM = small_problem(classes=4, features=6, rows=23, variance=3.0)


def start() -> KalmanState:
    return kalman.init(PROBLEM.mean, PROBLEM.variance, "class_block")


def data(size: int) -> list[Batch]:
    return [Batch(PROBLEM.design[rows], PROBLEM.labels[rows]) for rows in torch.arange(23).split(size)]


def one_after_another(rule: str, observation: object = SOFTMAX) -> tuple[KalmanState, list[StepInfo]]:
    """The naive filter: one update, one covariance, for every label."""
    state, infos = start(), []
    for batch in data(1):
        state, info = kalman.update(state, batch, RULES[rule], observation=observation)
        infos.append(info)
    return state, infos


def assert_same(state: KalmanState, other: KalmanState) -> None:
    assert state.steps == other.steps
    assert_near(state.belief.mean, other.belief.mean)
    assert_near(state.belief.covariance, other.belief.covariance)


@settings(max_examples=12, deadline=None)
@given(rule=some.sampled_from(["plain", "iterated"]), size=some.integers(1, 23))
def test_blocks_of_any_size_are_the_sequential_filter(rule: str, size: int) -> None:
    state, infos = one_after_another(rule)
    *_, (ended, last) = list(visits(start(), data(size), RULES[rule], one_by_one=True))
    assert_same(ended, state)
    rows = last.rows
    assert_near(last.change.curvature, torch.cat([info.change.curvature for info in infos[-rows:]]))
    assert_near(last.change.linear, torch.cat([info.change.linear for info in infos[-rows:]]))
    assert_near(last.change.log_evidence, sum(info.change.log_evidence for info in infos[-rows:]))
    assert_near(last.nis, sum(info.nis for info in infos[-rows:]))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("observation", [SOFTMAX, Bernoulli(), Gaussian(torch.tensor(0.5))])
def test_any_rule_and_observation_runs_in_blocks(rule: str, observation: object) -> None:
    if isinstance(observation, Bernoulli | Gaussian):
        targets = torch.nn.functional.one_hot(PROBLEM.labels).double()
        batches = [Batch(PROBLEM.design[:9], targets[:9])]
        singles = [Batch(PROBLEM.design[i : i + 1], targets[i : i + 1]) for i in range(9)]
    else:
        batches = [Batch(PROBLEM.design[:9], PROBLEM.labels[:9])]
        singles = [Batch(PROBLEM.design[i : i + 1], PROBLEM.labels[i : i + 1]) for i in range(9)]
    state = start()
    for single in singles:
        state, _ = kalman.update(state, single, RULES[rule], observation=observation)
    ((ended, _),) = visits(start(), batches, RULES[rule], observation, one_by_one=True)
    assert_same(ended, state)


@pytest.mark.parametrize("rule", ["plain", "iterated", "expected"])
@pytest.mark.parametrize("first", [0, 2])
def test_visits_are_updates(rule: str, first: int) -> None:
    batches, state, infos = data(5), start(), []
    for batch in batches[first:]:
        state, info = kalman.update(state, batch, RULES[rule])
        infos.append(info)
    *_, (ended, last) = visits(start(), batches, RULES[rule], first=first)
    assert_same(ended, state)
    for name in ("prequential_score", "nis", "gain_norm"):
        assert_near(getattr(last, name), getattr(infos[-1], name))


def test_a_visit_works_in_the_covariance_it_was_given() -> None:
    state = start()
    given_memory = state.belief.covariance.data_ptr()
    for reached, _ in visits(state, data(8), RULES["iterated"]):
        assert reached.belief.covariance.data_ptr() == given_memory


def test_the_site_of_a_block_can_be_taken_out_again() -> None:
    (batch, *_) = data(9)
    before = start()
    state, info, site = put_in_one_by_one(before, batch, RULES["iterated"])
    assert info.rows == 9 and state.steps == 9
    restored = kalman.take_out(state, batch, site)
    assert_near(restored.belief.mean, before.belief.mean)
    assert_near(restored.belief.covariance, before.belief.covariance)


@pytest.mark.parametrize("observation", [SOFTMAX, Bernoulli(), Gaussian(torch.tensor(0.5))])
def test_independent_rows_have_closed_forms(observation: object) -> None:
    generator = torch.Generator().manual_seed(1)
    variance = torch.rand(5, 3, generator=generator, dtype=torch.float64) * 9
    logits, excess, residual = torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    rows, blocks = RowGram(variance), BlockGram(torch.diag_embed(variance.mT))
    curvature = observation.curvature(logits)
    assert_near(rows.times(excess), blocks.times(excess))
    assert_near(rows.newton(curvature, excess, residual), blocks.newton(curvature, excess, residual))
    assert_near(rows.log_determinant(curvature), blocks.log_determinant(curvature))
    assert_near(rows.deviation(), blocks.deviation())
    assert_near(rows.row_covariance(), blocks.row_covariance())


@pytest.mark.parametrize("passes", [1, 2])
def test_block_size_changes_a_fit_by_rounding_alone(passes: int) -> None:
    task = tiny_task(classes=3, features=6, shots=5)
    asked = FitSettings(
        rule="iterated", batch_size=1, order="random", passes=passes, prior_variance=0.5, dtype="float64"
    )
    blocks, single = fit(task, asked), fit(task, replace(asked, block_size=1))
    assert len(blocks.steps) == 1 and len(single.steps) == (15 if passes == 1 else 1)
    assert_near(blocks.posterior.weights.mean, single.posterior.weights.mean)
    assert_near(blocks.posterior.weights.covariance, single.posterior.weights.covariance)
    assert blocks.posterior.stream.steps == single.posterior.stream.steps == 15


def test_labels_in_the_order_given_are_learned_in_pieces_without_blocks() -> None:
    """Pieces that end anywhere are then the whole bit for bit."""
    task = tiny_task(classes=3, features=6, shots=2)
    asked = FitSettings(rule="iterated", batch_size=1, order="given", prior_variance=0.5)
    assert len(fit(task, asked).steps) == 6
    assert len(fit(task, replace(asked, block_size=4)).steps) == 2


def test_gram_matrices_bound_the_block() -> None:
    assert rows_of_gram(1000) == 64 and rows_of_gram(20_000) == 14 and rows_of_gram(10**9) == 1


def test_a_fit_keeps_the_scores_of_its_batches_and_not_their_tensors() -> None:
    steps = fit(tiny_task(), FitSettings(prior_variance=0.5)).steps
    assert all(step.change.dual.numel() == step.change.downdate.numel() == 0 for step in steps)
    assert all(step.prequential_score < 0 and step.change.log_evidence.isfinite() for step in steps)
