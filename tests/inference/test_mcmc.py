from __future__ import annotations

import pytest
from naive_twins import mode_and_covariance
from small_problems import problem_of, tiny_task

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings


def test_ekf_and_laplace_agree_with_nuts_at_a_narrow_prior() -> None:
    """Mean weights in posterior deviations, and the deviations. 300 draws leave an error of about 0.06 to 0.1
    deviations; the skew of the posterior is small at this prior."""
    task = tiny_task(classes=2, features=3, shots=3, logit_scale=10.0)
    common = {"prior_variance": 0.01, "dtype": "float64", "predictive": "plug_in"}
    chain = fit(task, FitSettings(engine="nuts", **common)).posterior.weights
    mode, covariance = mode_and_covariance(problem_of(task, 0.01))
    deviation = covariance.diagonal().sqrt().reshape(mode.shape)
    for engine, rule in (("laplace", None), ("ekf", "iterated"), ("ekf", "expected")):
        found = fit(task, FitSettings(engine=engine, covariance="full", rule=rule, **common)).posterior
        assert float(((found.weights.mean - chain.mean) / deviation).abs().max()) < 0.25
        spread = found.weights.covariance.diagonal().sqrt().reshape(mode.shape)
        assert float((spread / chain.samples.std(0) - 1).abs().max()) < 0.25
    moved = (task.text_features.double() - chain.mean) / deviation
    assert float(moved.abs().max()) > 0.5, "the labels must move the weights in this test"


def test_what_would_take_hours_is_refused() -> None:
    large = tiny_task(classes=101, features=1000, shots=1, queries=1)
    with pytest.raises(UserError, match="engine nuts: 101,000 weights would take hours"):
        fit(large, FitSettings(engine="nuts"))
