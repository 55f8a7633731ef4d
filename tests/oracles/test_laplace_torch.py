"""Our Laplace engine against laplace-torch: covariance, predictive logits and evidence, to 1e-4 in float64.

Their curvature comes from automatic differentiation of a network, ours from the closed form; they agree to
about 1e-7.
"""

from __future__ import annotations

import pytest
import torch
from laplace_torch import their_laplace
from naive_twins import diagonal_blocks
from small_problems import assert_near, problem_of, tiny_task
from torch import Tensor

from bayes_clip.fitting import Fit, fit
from bayes_clip.settings import FitSettings

pytest.importorskip("laplace", reason="laplace-torch is not installed; it comes with the extra [test]")

TOLERANCE = 1e-4
CASES = {
    "3 classes, few features": (tiny_task(3, 2, 5, logit_scale=4.0), 0.1),
    "4 classes, more features than rows": (tiny_task(4, 24, 3, logit_scale=4.0), 0.2),
    "2 classes, a wide prior": (tiny_task(2, 3, 6, logit_scale=10.0), 1.0),
}
STRUCTURES = {"full": "full", "class_block": "full", "diagonal": "diag", "kronecker": "kron"}


def ours(name: str, engine: str, covariance: str, **chosen: object) -> Fit:
    task, variance = CASES[name]
    settings = FitSettings(
        engine=engine, covariance=covariance, prior_variance=variance, dtype="float64", **chosen
    )
    return fit(task, settings)


def moments(found: Fit, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of the logits as the posterior predicts with them."""
    predicted = found.posterior.predict(rows)
    return predicted.logit_mean, predicted.logit_variance


@pytest.mark.parametrize("name", CASES)
def test_covariance_is_theirs(name: str) -> None:
    task, variance = CASES[name]
    problem = problem_of(task, variance)
    full, blocks, diagonal = (ours(name, "laplace", kind) for kind in ("full", "class_block", "diagonal"))
    mode = full.posterior.weights.mean
    theirs = their_laplace(problem, mode, "full").covariance
    classes = len(mode)
    assert_near(full.posterior.weights.covariance / variance, theirs / variance, TOLERANCE)
    assert_near(
        blocks.posterior.weights.covariance / variance, diagonal_blocks(theirs, classes) / variance, TOLERANCE
    )
    decoupled = their_laplace(problem, mode, "diag").variance
    assert_near(diagonal.posterior.weights.variance.reshape(-1) / variance, decoupled / variance, TOLERANCE)
    narrowest = float(torch.linalg.eigvalsh(theirs).min())
    assert narrowest < 0.8 * variance, "the labels must narrow the prior in this test"


@pytest.mark.parametrize("covariance", STRUCTURES)
@pytest.mark.parametrize("name", CASES)
def test_predictive_logits_are_theirs(name: str, covariance: str) -> None:
    """Means and variances (N, C) of unseen rows; class_block keeps what these need of the full covariance."""
    task, variance = CASES[name]
    found = ours(name, "laplace", covariance)
    theirs = their_laplace(problem_of(task, variance), found.posterior.weights.mean, STRUCTURES[covariance])
    mean, joint = theirs.logits(task.logit_scale * task.query_features.double())
    own_mean, own_variance = moments(found, task.query_features)
    assert_near(own_mean, mean, TOLERANCE)
    assert_near(own_variance, joint.diagonal(dim1=1, dim2=2), TOLERANCE)
    if covariance in ("full", "kronecker"):
        design = task.logit_scale * task.query_features.double()
        assert_near(found.posterior.weights.logit_covariance(design), joint, TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_one_iterated_batch_of_the_filter_is_their_laplace(name: str) -> None:
    """Mode, covariance and log normaliser: the filter's own way there is different throughout."""
    task, variance = CASES[name]
    found = ours(name, "ekf", "full", rule="iterated", batch_size=len(task.support_labels))
    assert len(found.steps) == 1
    mode = ours(name, "laplace", "full").posterior.weights.mean
    theirs = their_laplace(problem_of(task, variance), mode, "full")
    assert_near(found.posterior.weights.mean, mode, TOLERANCE)
    assert_near(found.posterior.weights.covariance / variance, theirs.covariance / variance, TOLERANCE)
    assert_near(torch.tensor(found.info["log_evidence"]).double(), theirs.log_evidence.detach(), TOLERANCE)
