from __future__ import annotations

import numpy as np
import torch
from model_programs import TASK, draws, program, unit
from small_problems import assert_near

from bayes_clip.inference.program import read_program
from bayes_clip.model import Support


def naive_confidence(labels: torch.Tensor) -> np.ndarray:
    """Mean zero-shot probability of each class over its rows and one row of the average."""
    features, text = unit(TASK.support_features).numpy(), unit(TASK.text_features).numpy()
    rows: list[list[float]] = [[] for _ in text]
    for feature, label in zip(features, labels.tolist(), strict=True):
        logits = TASK.logit_scale * text @ feature
        chances = np.exp(logits - logits.max())
        rows[label].append(chances[label] / chances.sum())
    average = np.mean([np.mean(own) for own in rows if own])
    return np.array([np.mean([*own, average]) for own in rows])


def test_each_class_has_a_prior_as_wide_as_zero_shot_is_unsure_of_it() -> None:
    prior = program("clap", 0.04).prior()["class_weights"]
    confidence = naive_confidence(TASK.support_labels)
    wanted = 0.04 * confidence.mean() / confidence
    assert_near(prior.variance, torch.from_numpy(wanted)[:, None].expand(3, 6))
    assert_near(prior.mean, unit(TASK.text_features))
    assert len(set(np.round(wanted, 9))) == 3


def test_the_prior_variance_is_the_harmonic_mean_over_the_classes() -> None:
    variance = program("clap", 0.04).prior()["class_weights"].variance[:, 0]
    assert_near(1 / (1 / variance).mean(), torch.tensor(0.04, dtype=torch.float64))


def test_it_is_a_linear_head_with_that_prior() -> None:
    head = read_program(program("clap", 0.04), unit(TASK.support_features))
    assert head.is_head
    assert_near(head.prior_variance, program("clap", 0.04).prior()["class_weights"].variance)
    assert_near(head.design(unit(TASK.support_features)), TASK.logit_scale * unit(TASK.support_features))


def test_a_class_without_rows_is_as_uncertain_as_the_average_and_all_alike_without_text() -> None:
    labels = TASK.support_labels % 2
    model = program("clap", 0.04, support=Support(unit(TASK.support_features), labels))
    assert_near(model.confidence(), torch.from_numpy(naive_confidence(labels)))  # type: ignore[attr-defined]
    flat = program("clap", 0.04, text_features=torch.zeros(3, 6).double())
    assert_near(flat.prior()["class_weights"].variance, torch.full((3, 6), 0.04).double())


def test_the_loss_is_that_of_the_authors_in_text_features_ten_long() -> None:
    model = program("clap")
    weights = {"class_weights": 10 * draws(model)["class_weights"]}
    inputs, labels = unit(TASK.support_features), TASK.support_labels
    long = 10 * unit(TASK.text_features)
    cosine = torch.nn.functional.cosine_similarity(inputs[:, None], weights["class_weights"], dim=-1)
    fit = torch.nn.functional.cross_entropy(TASK.logit_scale * cosine, labels)
    away = (weights["class_weights"] - long).square().sum(-1)
    penalty = (torch.from_numpy(naive_confidence(labels)) * away).mean()
    assert_near(model.loss(weights, inputs, labels), fit + penalty, 1e-12)


def test_trained_class_weights_are_predicted_with_as_they_were_trained() -> None:
    model = program("clap")
    weights = {"class_weights": 10 * draws(model)["class_weights"]}
    inputs = unit(TASK.query_features)
    cosine = torch.nn.functional.cosine_similarity(inputs[:, None], weights["class_weights"], dim=-1)
    assert_near(model.logits(model.finish(weights), inputs), TASK.logit_scale * cosine, 1e-12)
