"""Labels that look wrong: the share of mistakes by its equations; flipped labels found, clean ones not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_clip.data.rows import Pictures
from bayes_clip.data.task import Task, make_task
from bayes_clip.evaluation.suspects import (
    SUSPECT_COLUMNS,
    doubt_labels,
    remark,
    suspect_rows,
    wrongness,
)
from bayes_clip.fitting import left_out_logits
from bayes_clip.settings import FitSettings

CLASSES, EACH = 4, 8
FLIPPED = (3, 12, 21)


def task_with(flips: tuple[int, ...], noise: float = 0.2, text: bool = True) -> Task:
    generator = np.random.default_rng(0)
    labels = np.tile(np.arange(CLASSES), EACH)
    centres = np.eye(CLASSES, 6)
    features = centres[labels] + noise * generator.normal(size=(len(labels), 6))
    given_labels = labels.copy()
    given_labels[list(flips)] = (labels[list(flips)] + 1) % CLASSES
    return make_task(
        "made",
        features,
        given_labels,
        features,
        labels,
        text_features=centres + 0.1 if text else None,
        class_names=["ant", "bee", "cat", "dog"],
        logit_scale=20.0,
    )


def test_flipped_labels_are_found_and_nothing_else() -> None:
    task = task_with(FLIPPED)
    doubts = doubt_labels(task)
    assert doubts is not None
    assert sorted(doubts.suspects.tolist()) == list(FLIPPED)
    assert doubts.share == pytest.approx(len(FLIPPED) / len(task.support_labels), abs=0.03)
    assert doubts.suggested[3] == 3 and task.support_labels[3] == 0
    clean = doubt_labels(task_with(()))
    assert clean is not None and len(clean.suspects) == 0 and remark(task_with(()), []) == ()


def test_no_row_vouches_for_itself() -> None:
    """Another label of one row moves what is said of the others, never what is said of its picture."""
    task = task_with(())
    changed = task.support_labels.clone()
    changed[5] = 3
    first, second = (
        left_out_logits(replace(task, support_labels=labels), FitSettings(engine="map", prior_variance=0.1))
        for labels in (task.support_labels, changed)
    )
    assert first is not None and second is not None
    # the folds follow the labels, so compare where the same rows stay with row 5: by the answer itself
    assert first[5].argmax() == second[5].argmax() == 1


def test_query_rows_play_no_part() -> None:
    task = task_with(FLIPPED)
    first, second = (
        doubt_labels(each) for each in (task, replace(task, query_features=-task.query_features))
    )
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.wrong, second.wrong)


def test_rows_say_what_and_where(tmp_path: object) -> None:
    task = task_with(FLIPPED)
    pictures = Pictures(lambda number: torch.zeros(3, 1, 1), tuple(range(32)), called=lambda n: f"{n}.png")
    named = replace(task, support_pictures=pictures)
    doubts = doubt_labels(named)
    assert doubts is not None
    rows = suspect_rows(named, doubts)
    assert all(tuple(row) == SUSPECT_COLUMNS for row in rows)
    found = next(row for row in rows if row["row"] == 3)
    assert (found["input"], found["given"], found["suggested"]) == ("3.png", "ant", "dog")
    assert float(found["probability"]) < 0.1 and float(found["wrong"]) > 0.5
    (said,) = remark(named, rows)
    assert said.startswith("3 of 32 labels may be wrong") and ".png given '" in said
    assert suspect_rows(task, doubts)[0]["input"] == ""


def test_one_shot_and_a_class_of_one_row_without_text_are_not_judged() -> None:
    task = task_with(())
    assert doubt_labels(task.with_support(torch.arange(CLASSES))) is None
    bare = task_with((), text=False)
    alone = bare.with_support(torch.tensor([row for row in range(32) if row % 4 or row == 0]))
    doubts = doubt_labels(alone)
    assert doubts is not None and np.isnan(doubts.probability[0]) and doubts.wrong[0] == 0
    assert np.isfinite(doubts.probability[1:]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-9, 1), min_size=1, max_size=30), st.integers(2, 50))
def test_the_share_is_where_its_equation_holds(probabilities: list[float], classes: int) -> None:
    given_labels = np.array(probabilities)
    wrong, share = wrongness(given_labels, classes)
    assert ((wrong >= 0) & (wrong <= 1)).all() and 0 <= share <= 1
    order = np.argsort(given_labels)
    assert (np.diff(wrong[order]) <= 1e-12).all()  # the less likely the label, the likelier it is wrong

    def evidence(value: float) -> float:
        mixed = (1 - value) * given_labels + value * (1 - given_labels) / (classes - 1)
        return float(np.log(np.maximum(mixed, 1e-300)).sum())

    assert evidence(share) >= evidence(0.1) - 1e-9
