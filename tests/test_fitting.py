from __future__ import annotations

import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_problems import assert_near, tiny_task
from torch import Tensor

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


def test_a_program_without_slope_at_its_prior_mean_is_refused_by_engines_that_need_one() -> None:
    """A product of two layers that are both zero: a saddle that no Newton or Kalman step leaves."""

    def dead(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        first = pyro.sample("first", dist.Normal(torch.zeros(2, inputs.shape[1]), 1.0).to_event(2))
        second = pyro.sample("second", dist.Normal(torch.zeros(3, 2), 1.0).to_event(2))
        with pyro.plate("data", len(inputs)):
            return pyro.sample("labels", dist.Categorical(logits=inputs @ first.mT @ second.mT), obs=labels)

    for engine in ("map", "ekf", "laplace"):
        with pytest.raises(UserError, match="dead: at the prior mean its logits do not move"):
            fit(tiny_task(), FitSettings(engine=engine), program=dead)
    assert fit(tiny_task(), FitSettings(engine="vi", predictive="plug_in"), program=dead).seconds > 0


def test_process_noise_chosen_by_score_is_kept_with_the_posterior() -> None:
    fitted = fit(tiny_task(shots=3), FitSettings(process_noise="auto", prior_variance=0.01, batch_size=3))
    assert fitted.drift is not None
    best = max(fitted.drift.profile, key=lambda tried: tried.prequential_score)
    assert fitted.drift.process_noise == best.process_noise
    assert fitted.posterior.source.settings.process_noise == fitted.drift.process_noise
    assert fitted.info["process_noise"] == fitted.drift.process_noise
    (note,) = fitted.notes
    assert note.startswith("process noise") and "prequential score" in note
    with pytest.raises(UserError, match="--passes above 1 with --process-noise auto"):
        FitSettings(process_noise="auto", passes=2)
