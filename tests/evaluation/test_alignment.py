from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_problems import tiny_task

from bayes_clip.errors import UserError
from bayes_clip.evaluation.alignment import in_class_order
from bayes_clip.evaluation.scoring import score_posterior
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings

TASK = replace(tiny_task(), class_names=("cat", "dog", "owl"))
TURNED = replace(TASK, class_names=("owl", "cat", "dog"), query_labels=(TASK.query_labels + 1) % 3)


def test_labels_follow_their_names() -> None:
    assert in_class_order(TASK, TASK.class_names) is TASK
    again = in_class_order(TURNED, TASK.class_names)
    assert torch.equal(again.query_labels, TASK.query_labels)
    assert again.class_names == TASK.class_names
    more = in_class_order(TURNED, ("ant", *TASK.class_names))
    assert torch.equal(more.query_labels, TASK.query_labels + 1)


def test_scores_do_not_depend_on_the_order_of_the_classes() -> None:
    posterior = fit(TASK, FitSettings(engine="map", prior_variance=0.01)).posterior
    rows = [score_posterior(posterior, task).row for task in (TASK, TURNED)]
    assert rows[0]["nll"] == rows[1]["nll"] and rows[0]["accuracy"] == rows[1]["accuracy"] > 0.5


def test_without_names_classes_are_matched_by_number() -> None:
    unnamed = tuple(f"class {index}" for index in range(3))
    assert torch.equal(in_class_order(TASK, unnamed).query_labels, TASK.query_labels)
    with pytest.raises(UserError, match="tiny has 3 classes and the posterior 2"):
        in_class_order(TASK, unnamed[:2])


def test_what_cannot_be_matched_is_named() -> None:
    with pytest.raises(UserError, match=r"tiny: the posterior does not know its class 'dog' and 1 more"):
        in_class_order(TASK, ("cat", "bee"))
    only_cats = replace(TASK, query_labels=torch.zeros_like(TASK.query_labels))
    assert not in_class_order(only_cats, ("cat", "bee")).query_labels.any()
    with pytest.raises(UserError, match="the posterior: two classes are called 'cat'"):
        in_class_order(TASK, ("cat", "cat", "dog"))
