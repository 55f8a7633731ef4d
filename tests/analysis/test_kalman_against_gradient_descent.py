"""Kalman updates against gradient descent: every learner sees the same stream, and nothing ahead of it."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from small_problems import assert_near, tiny_task
from torch.nn.functional import cross_entropy

import bayes_clip as bc

TASK = tiny_task(classes=3, features=6, shots=4, queries=6)


@pytest.fixture(scope="module")
def learners() -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))  # as python analysis/x.py does
    return importlib.import_module("stream_learners")


@pytest.fixture(scope="module")
def study(learners: ModuleType) -> ModuleType:
    return importlib.import_module("kalman_against_gradient_descent")


@pytest.fixture(scope="module")
def found(study: ModuleType) -> tuple[pd.DataFrame, pd.DataFrame]:
    return study.study(TASK, 3, [0, 1])


def test_a_stream_is_one_shot_of_every_class_at_a_time(learners: ModuleType) -> None:
    stream = learners.stream_of(TASK, 0)
    assert [sorted(labels.tolist()) for labels in stream.labels] == 4 * [[0, 1, 2]]
    assert_near(stream.queries, TASK.logit_scale * TASK.query_features)


def test_the_filter_is_that_of_the_package(learners: ModuleType) -> None:
    drawn = bc.few_shot(TASK, 4, 0)
    stream = learners.stream_of(drawn, 0)
    *_, (told, _) = learners.filtered(stream, "class_block", 4.0)
    settings = bc.FitSettings(
        prior_variance=4.0 / TASK.logit_scale**2, batch_size=3, predictive="plug_in", seed=0
    )
    wanted = bc.fit(drawn, settings).posterior.predict(TASK.query_features).probabilities
    assert_near(told.predict(stream.queries).exp().double(), wanted.double(), 1e-4)


def test_one_gradient_step_a_batch_by_hand(learners: ModuleType) -> None:
    stream = learners.stream_of(TASK, 0)
    _, (told, _), *_ = learners.descended(stream, "sgd", False, 2.0)
    weights = stream.start.clone().requires_grad_()
    cross_entropy(stream.design[0] @ weights.mT, stream.labels[0]).backward()
    moved = weights.detach() - 2.0 / TASK.logit_scale**2 * weights.grad
    assert_near(told.predict(stream.queries), (stream.queries @ moved.mT).log_softmax(-1), 1e-5)


def test_no_learner_looks_ahead(learners: ModuleType) -> None:
    """What is known before a batch does not change with the labels of that batch and later ones."""
    stream = learners.stream_of(TASK, 0)
    other = replace(stream, labels=(*stream.labels[:2], *(labels.flip(0) for labels in stream.labels[2:])))
    for learner, values in learners.learners().values():
        kept, changed = (
            [told.predict(stream.queries) for told, _ in learner(one, values[2])] for one in (stream, other)
        )
        assert len(kept) == 5
        assert all(torch.equal(*pair) for pair in zip(kept[:3], changed[:3], strict=True))
        assert not torch.equal(kept[3], changed[3])


def test_every_arm_starts_at_zero_shot_and_chooses_by_the_stream_alone(
    study: ModuleType, found: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    table, grid = found
    assert set(table["labels"]) == {0, 3, 6, 9}
    begun = table[(table["labels"] == 0) & ~table["arm"].str.contains("averaged")]
    assert begun["nll"].nunique() == 1
    for _, own in grid.groupby(["seed", "arm"]):
        assert own["chosen"].sum() == 1 and len(own) in (5, 9)
        assert own.loc[own["chosen"], "next_nll"].item() == own["next_nll"].min()


def test_the_text_says_who_was_compared(study: ModuleType, found: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    text = study.summary(*found) + study.conclusions(*found)
    for said in ("Per label, no label kept", "Per second", "values of the grid", "| sgd, replay |"):
        assert said in text
    assert study.draw(found[0]).axes
