"""The discriminant in closed form against its authors' formula."""

from __future__ import annotations

import numpy as np
import torch
from model_programs import TASK, naive_discriminant, queries, unit
from small_problems import assert_near

from bayes_clip.discriminant import discriminant, weight_by_folds


def test_the_discriminant_is_the_closed_form_of_its_authors() -> None:
    features, labels = unit(TASK.support_features), TASK.support_labels
    found = discriminant(features, labels, 3)
    weights, bias = naive_discriminant(features.numpy(), labels.numpy(), 3)
    assert_near(found.weights, torch.from_numpy(weights))
    assert_near(found.bias, torch.from_numpy(bias))


def test_at_one_shot_the_covariance_is_that_about_the_mean_of_all() -> None:
    features, labels = unit(TASK.support_features)[:3], torch.arange(3)
    found = discriminant(features, labels, 3)
    covariance = torch.from_numpy(np.cov(features.numpy().T))
    ridge = 2 * covariance + covariance.trace() * torch.eye(6).double()
    assert_near(found.weights, 6 * features @ torch.linalg.inv(ridge))
    assert weight_by_folds(features, labels, features[:, :3], (0.1, 1.0)) is None


def test_a_class_without_rows_scores_as_the_others_do_on_average() -> None:
    features, labels = unit(TASK.support_features), TASK.support_labels % 2
    scores = discriminant(features, labels, 3).scores(queries())
    assert_near(scores[:, 2], scores[:, :2].mean(-1))
