"""Every criterion's number at a prior variance is the one a fit there reports."""

from __future__ import annotations

import pytest
import torch

from bayes_clip.data.task import Task, make_task
from bayes_clip.evaluation.label_course import label_course
from bayes_clip.evaluation.metrics import nll
from bayes_clip.evaluation.prior_profile import prior_profile, tried
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings


@pytest.fixture(scope="module")
def task() -> Task:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(3, 6, generator=generator)
    labels = torch.arange(18) % 3
    features = text[labels] + torch.randn(18, 6, generator=generator)
    return make_task("small", features[:12], labels[:12], features[12:], labels[12:], text_features=text)


def test_criteria_are_those_of_the_fits(task: Task) -> None:
    profile = prior_profile(task, FitSettings(), [0.01, 0.1])
    fitted = fit(task, FitSettings(prior_variance=0.1))
    assert profile["folds"][0.1] == fitted.tuned.profile[0].fold_nll
    assert profile["evidence"][0.1] == pytest.approx(-fitted.info["log_evidence"] / 12)
    said = fitted.posterior.predict(task.query_features).probabilities.double().numpy()
    assert profile["test"][0.1] == pytest.approx(nll(said, task.query_labels.numpy()))
    assert [list(points) for points in profile.values()] == [[0.01, 0.1]] * 3
    assert prior_profile(task, FitSettings(engine="map"), [0.1])["evidence"] == {}


def test_what_a_fit_tried_is_what_it_chose_by(task: Task) -> None:
    tuned = fit(task, FitSettings()).tuned
    objective = tried(tuned)["objective"]
    assert min(objective, key=lambda value: objective[value]) == tuned.prior_variance


def test_a_course_ends_where_learning_all_labels_one_by_one_ends(task: Task) -> None:
    settings = FitSettings(order="given", batch_size=1, prior_variance=0.05, dtype="float64")
    first, rest = task.with_support(torch.arange(6)), task.with_support(torch.arange(6, 12))
    before = fit(first, settings).posterior
    course = label_course(before, rest, task.query_features)
    assert course.shape == (7, 6, 3)
    start = before.predict(task.query_features).probabilities.numpy()
    assert abs(course[0] - start).max() == 0
    whole = fit(task, settings).posterior.predict(task.query_features).probabilities.numpy()
    assert abs(course[-1] - whole).max() < 1e-9
    strangers = make_task(
        "new", torch.ones(1, 6), [0], class_names=["never seen"], text_features=torch.ones(1, 6), partial=True
    )
    with pytest.raises(ValueError, match="does not know"):
        label_course(before, strangers, task.query_features)
