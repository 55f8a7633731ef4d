"""Engines against a long NUTS chain where the posterior is nearly Gaussian.

Means within 0.1 posterior standard deviations, standard deviations within 10 %. Where it is not nearly
Gaussian nothing is asserted: analysis/posterior_against_nuts.py reports the distance.
"""

from __future__ import annotations

import pytest
import torch
from importance import weighted_draws
from nuts_reference import CASES, Moments, reference
from torch import Tensor

from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings

MEAN_WITHIN, DEVIATION_WITHIN = 0.1, 0.1
ENGINES = {
    "ekf, full": {"engine": "ekf", "covariance": "full", "rule": "expected"},
    "ekf iterated, class_block": {"engine": "ekf", "covariance": "class_block", "rule": "iterated"},
    "ekf iterated, full": {"engine": "ekf", "covariance": "full", "rule": "iterated"},
    "laplace, full": {"engine": "laplace", "covariance": "full"},
    "laplace, class_block": {"engine": "laplace", "covariance": "class_block"},
}


def distances(mean: Tensor, deviation: Tensor, wanted: Moments) -> tuple[float, float]:
    """Largest distance of a mean, in posterior deviations, and of a deviation, as a fraction."""
    return (
        float(((mean - wanted.mean) / wanted.deviation).abs().max()),
        float((deviation / wanted.deviation - 1).abs().max()),
    )


def marginal_deviation(covariance: Tensor, shape: torch.Size) -> Tensor:
    """Standard deviations (C, D) from a covariance (C D, C D) or its blocks (C, D, D)."""
    return covariance.diagonal(dim1=-2, dim2=-1).sqrt().reshape(shape)


@pytest.mark.parametrize("name", CASES)
def test_the_kept_chain_has_the_moments_of_the_exact_posterior(name: str) -> None:
    """Importance sampling knows them too; four standard errors of the chain."""
    kept, exact = reference(name), weighted_draws(CASES[name].problem)
    assert kept.effective_draws > 2_000
    mean, deviation = distances(exact.mean, exact.deviation, kept)
    assert mean < 4 / kept.effective_draws**0.5
    assert deviation < 4 / (2 * kept.effective_draws) ** 0.5


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_have_the_moments_of_the_chain(engine: str, name: str) -> None:
    case = CASES[name]
    rows = len(case.task.support_labels)  # one batch: what several cost is another question
    settings = FitSettings(
        **ENGINES[engine],
        prior_variance=case.variance,
        dtype="float64",
        batch_size=rows,
        predictive="plug_in",
    )
    found = fit(case.task, settings).posterior.weights
    kept = reference(name)
    mean, deviation = distances(found.mean, marginal_deviation(found.covariance, found.mean.shape), kept)
    assert mean < MEAN_WITHIN
    assert deviation < DEVIATION_WITHIN


@pytest.mark.parametrize("name", CASES)
def test_the_prior_is_not_near_enough(name: str) -> None:
    """So that the bounds mean something: the labels moved the means and narrowed the deviations."""
    problem = CASES[name].problem
    mean, deviation = distances(problem.mean, problem.variance.sqrt(), reference(name))
    assert mean > 5 * MEAN_WITHIN
    assert deviation > DEVIATION_WITHIN
