from __future__ import annotations

from dataclasses import replace

import pyro
import pytest
import torch
from pyro import poutine
from small_problems import assert_near

from bayes_clip.evaluation.simulated import (
    densities,
    posterior_draws,
    program_of,
    seed_of,
    simulate,
    small_task,
)
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings

TASK = small_task()
PROGRAM = program_of(TASK, "linear_probe", 0.7)
INPUTS = TASK.support_features.double()


def test_densities_are_the_program_s_own_trace_draw_by_draw() -> None:
    weights = {"class_weights": torch.randn(4, 3, 3, dtype=torch.float64)}
    found = densities(PROGRAM, weights, INPUTS, TASK.support_labels)
    assert found.logits.shape == (4, 30, 3) and found.log_likelihood.shape == (4, 30)
    for index in range(4):
        one = {"class_weights": weights["class_weights"][index]}
        trace = poutine.trace(poutine.condition(PROGRAM, data=one)).get_trace(INPUTS, TASK.support_labels)
        assert_near(found.log_joint[index], trace.log_prob_sum())
        logits = PROGRAM.logits(one, INPUTS).log_softmax(-1)
        assert_near(found.logits[index], logits)
        picked = logits.gather(1, TASK.support_labels[:, None])[:, 0]
        assert_near(found.log_likelihood[index], picked)


def test_truths_have_the_prior_s_moments_and_labels_the_likelihood_s() -> None:
    drawn = [simulate(PROGRAM, INPUTS, seed) for seed in range(400)]
    weights = torch.stack([truth["class_weights"] for truth, _ in drawn])
    assert weights.dtype == torch.float64
    error = (weights.mean(0) - PROGRAM.text_features) / (0.7 / 400) ** 0.5
    assert float(error.abs().max()) < 4
    assert weights.var(0) == pytest.approx(torch.full((3, 3), 0.7).numpy(), rel=0.35)
    expected = torch.stack([PROGRAM.logits(truth, INPUTS).softmax(-1) for truth, _ in drawn]).mean((0, 1))
    seen = torch.nn.functional.one_hot(torch.stack([labels for _, labels in drawn])).double().mean((0, 1))
    assert float((expected - seen).abs().max()) < 0.02


def test_a_seed_draws_the_same_again_and_leaves_the_caller_s_random_numbers_alone() -> None:
    state = torch.random.get_rng_state()
    first, again = simulate(PROGRAM, INPUTS, 5), simulate(PROGRAM, INPUTS, 5)
    assert torch.equal(first[1], again[1]) and torch.equal(
        first[0]["class_weights"], again[0]["class_weights"]
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert seed_of(0, 1) != seed_of(1, 0) and seed_of(2, 3) == seed_of(2, 3)


@pytest.mark.parametrize("engine", ["laplace", "ekf"])
def test_draws_have_the_posterior_s_moments_and_the_program_s_shapes(engine: str) -> None:
    settings = FitSettings(engine=engine, prior_variance=0.5, dtype="float64", predictive="monte_carlo")
    posterior = fit(replace(TASK), settings).posterior
    sites, flat = posterior_draws(posterior, 4000, seed=0)
    assert sites["class_weights"].shape == (4000, 3, 3) and flat.shape == (4000, 9)
    assert_near(sites["class_weights"].flatten(1), flat)
    distribution = posterior.get_posterior()
    error = (flat.mean(0) - distribution.mean) / (distribution.variance / 4000).sqrt()
    assert float(error.abs().max()) < 4
    again, _ = posterior_draws(posterior, 4000, seed=0)
    assert torch.equal(again["class_weights"], sites["class_weights"])
    pyro.clear_param_store()
