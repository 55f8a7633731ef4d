from __future__ import annotations

import torch
from model_programs import TASK, prior_means, program, queries, unit, zero_shot_logits
from small_problems import assert_near

from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings

ALPHA, BETA = 2.0, 5.5


def naive_cache(
    features: torch.Tensor, keys: torch.Tensor, labels: torch.Tensor, scale: float
) -> torch.Tensor:
    """The published cache logits, one key at a time, for features and keys of any length."""
    logits = torch.zeros(len(features), 3, dtype=torch.float64)
    for row, feature in enumerate(features):
        for key, label in zip(keys, labels.tolist(), strict=True):
            cosine = feature @ key / (feature.norm() * key.norm())
            logits[row, label] += ALPHA * scale / 100 * torch.exp(-BETA * (1 - cosine))
    return logits


def test_the_prior_mean_is_training_free_tip_adapter() -> None:
    model = program("tip_adapter")
    keys, labels = unit(TASK.support_features), TASK.support_labels
    wanted = zero_shot_logits() + naive_cache(queries(), keys, labels, TASK.logit_scale)
    assert_near(model.logits(prior_means(model), queries()), wanted, 1e-12)


def test_affinities_are_those_of_unit_features_whatever_their_length() -> None:
    """A known re-implementation leaves the image features as long as they come: affinities without bound."""
    model = program("tip_adapter")
    weights = prior_means(model)
    stretched = 7 * queries()
    assert_near(model.logits(weights, stretched), model.logits(weights, queries()), 1e-12)


def test_fitted_under_zero_shot_it_reads_the_support_rows_of_the_task() -> None:
    chances = fit(
        TASK, FitSettings(model="tip_adapter", engine="zero_shot", dtype="float64")
    ).posterior.predict(TASK.query_rows)
    cache = naive_cache(queries(), unit(TASK.support_features), TASK.support_labels, TASK.logit_scale)
    assert_near(chances.probabilities, (zero_shot_logits() + cache).softmax(-1), 1e-6)


def test_a_key_moves_the_logits_of_its_own_class_alone() -> None:
    model = program("tip_adapter")
    weights = prior_means(model)
    before = model.logits(weights, queries())
    keys = weights["keys"].clone()
    keys[4] += 0.1
    moved = (model.logits({"keys": keys}, queries()) - before).abs().amax(0)
    own = int(TASK.support_labels[4])
    assert moved[own] > 0 and moved.sum() == moved[own]
