from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_problems import assert_near, tiny_task

from bayes_clip.data.task import few_shot
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings
from bayes_clip.tuning import CENTRES

TASK = tiny_task(shots=6)


def test_at_one_shot_the_hyper_prior_decides() -> None:
    """s² v is the centre of the rule: for unit rows the prior variance of a logit is s² v."""
    task = few_shot(TASK, 1, 0)
    for engine, kind in (("map", "map"), ("laplace", "laplace"), ("ekf", "expected")):
        tuned = fit(task, FitSettings(engine=engine)).tuned
        assert tuned.prior_variance == pytest.approx(CENTRES[kind] / TASK.logit_scale**2, rel=1e-4)
        assert tuned.covariance_scale == 0 and not tuned.profile


@pytest.mark.parametrize("engine", ["map", "ekf", "laplace"])
def test_the_prior_variance_chosen_is_the_best_tried(engine: str) -> None:
    fitted = fit(TASK, FitSettings(engine=engine))
    assert len(fitted.tuned.profile) >= 3
    best = min(fitted.tuned.profile, key=lambda candidate: candidate.objective)
    assert fitted.tuned.prior_variance == best.prior_variance == fitted.posterior.source.prior_variance
    assert fitted.tuned.covariance_scale == best.covariance_scale
    assert fitted.posterior.program.prior_variance == best.prior_variance


def test_a_prior_variance_that_is_given_is_used_and_only_the_scale_is_chosen() -> None:
    fitted = fit(TASK, FitSettings(prior_variance=0.02))
    assert fitted.tuned.prior_variance == 0.02 and len(fitted.tuned.profile) == 1
    assert fit(TASK, FitSettings(prior_variance=0.02, predictive="plug_in")).tuned.profile == ()


def test_only_the_support_set_is_looked_at() -> None:
    """Other query rows, the same fit."""
    other = replace(TASK, query_features=-TASK.query_features, query_labels=TASK.query_labels.flip(0))
    assert fit(TASK).tuned.profile == fit(other).tuned.profile


def test_a_common_direction_added_to_the_text_changes_no_probability() -> None:
    """Adding u to every class's text adds s xᵀu to all logits of a row."""
    for engine in ("map", "ekf", "laplace"):
        settings = FitSettings(engine=engine, prior_variance=0.01, dtype="float64", predictive="plug_in")
        shifted = replace(TASK, text_features=TASK.text_features + torch.linspace(-1, 1, 6))
        one, other = (fit(task, settings).posterior.predict(TASK.query_features) for task in (TASK, shifted))
        assert_near(other.probabilities, one.probabilities, 1e-5)


def test_steps_report_both_scores_of_the_filter() -> None:
    fitted = fit(TASK, FitSettings(prior_variance=0.01, batch_size=6))
    assert [step.rows for step in fitted.steps] == [6, 6, 6]
    info = fitted.info
    chance = len(TASK.support_labels) * math.log(1 / 3)
    assert chance < info["prequential_score"] < 0
    assert info["log_evidence"] != info["prequential_score"]
    assert info["prior_variance"] == 0.01 and info["seconds"] > 0
    assert fit(TASK, FitSettings(engine="map")).steps == ()


def test_without_text_every_engine_starts_from_nothing_and_learns() -> None:
    task = tiny_task(shots=6, text=False)
    for engine in ("map", "ekf", "laplace"):
        probabilities = fit(task, FitSettings(engine=engine)).posterior.predict(task.query_features)
        hits = probabilities.probabilities.argmax(-1) == task.query_labels
        assert float(hits.double().mean()) > 0.6
    with pytest.raises(UserError, match="tiny: zero_shot needs text_features"):
        fit(task, FitSettings(engine="zero_shot"))


def test_gradients_are_neither_needed_nor_left_behind() -> None:
    posterior = fit(TASK, FitSettings(engine="ekf")).posterior
    assert not posterior.weights.mean.requires_grad
    assert torch.is_grad_enabled()
