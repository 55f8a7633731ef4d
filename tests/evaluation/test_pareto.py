from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from bayes_clip.errors import UserError
from bayes_clip.evaluation.pareto import pareto_k, posterior_pareto_k, threshold
from bayes_clip.evaluation.simulated import program_of, simulate, small_task
from bayes_clip.fitting import fit
from bayes_clip.gaussian import Full
from bayes_clip.settings import FitSettings

SETTINGS = FitSettings(engine="laplace", covariance="full", dtype="float64", predictive="monte_carlo")


@pytest.mark.skipif(version("arviz").split(".")[0] != "0", reason="arviz 1.x keeps psislw elsewhere")
def test_it_is_arviz_s_own_number() -> None:
    import arviz

    log_weights = np.random.default_rng(0).standard_t(3, size=1000)
    assert pareto_k(log_weights) == float(arviz.psislw(log_weights)[1])
    assert pareto_k(np.zeros(100)) == -float("inf")


def test_the_tail_of_a_known_ratio_has_the_shape_that_theory_gives() -> None:
    # q = N(0, τ²) for p = N(0, 1): the ratio's tail index is 1 − τ² where that is positive
    generator = np.random.default_rng(1)
    for scale, wanted in ((0.5**0.5, 0.5), (0.3**0.5, 0.7)):
        draws = scale * generator.normal(size=200_000)
        assert pareto_k(-(draws**2) / 2 + (draws / scale) ** 2 / 2) == pytest.approx(wanted, abs=0.1)


def test_a_good_posterior_can_be_reweighted_and_a_narrowed_one_cannot() -> None:
    task = small_task()
    _, labels = simulate(program_of(task, "linear_probe", 0.1), task.support_features.double(), 0)
    drawn = replace(task, support_labels=labels)
    posterior = fit(drawn, replace(SETTINGS, prior_variance=0.1)).posterior
    assert posterior_pareto_k(posterior, drawn) < 0.5 < threshold() == pytest.approx(2 / 3)
    own = posterior.weights
    assert isinstance(own, Full)
    posterior.weights = Full(own.mean, own.covariance / 4)
    assert posterior_pareto_k(posterior, drawn) > threshold()


def test_points_and_high_dimensions_are_refused_in_one_line() -> None:
    task = small_task()
    with pytest.raises(UserError, match="Pareto-k̂ of map: a point has no density"):
        posterior_pareto_k(fit(task, replace(SETTINGS, engine="map", prior_variance=0.1)).posterior, task)
    large = small_task(features=22)
    posterior = fit(large, replace(SETTINGS, prior_variance=0.1)).posterior
    with pytest.raises(UserError, match="Pareto-k̂ of 66 weights: above 64 it says more about the dimension"):
        posterior_pareto_k(posterior, large)
    assert torch.isfinite(posterior.weights.mean).all()
