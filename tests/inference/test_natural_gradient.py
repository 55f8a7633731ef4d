"""One natural-gradient step in the diagonal of the precision, against the formula written out."""

from __future__ import annotations

import pytest
import torch
from naive_twins import jacobian, softmax_curvature
from small_problems import assert_near, small_problem, tiny_task

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.inference import kalman
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.natural_gradient import update
from bayes_clip.inference.rules import RULES
from bayes_clip.settings import FitSettings

PROBLEM = small_problem(classes=3, features=5, rows=7)
BATCH = Batch(PROBLEM.design, PROBLEM.labels)


def start(family: str = "diagonal_variational") -> kalman.KalmanState:
    return kalman.init(PROBLEM.mean, PROBLEM.variance, family)


@pytest.mark.parametrize("offset", [None, torch.linspace(-1, 1, 21, dtype=torch.float64).reshape(7, 3)])
def test_is_the_formula_with_every_matrix_written_out(offset: torch.Tensor | None) -> None:
    state, info = update(start(), Batch(PROBLEM.design, PROBLEM.labels, offset))
    rows = jacobian(PROBLEM.design, 3)
    logits = PROBLEM.logits + (0 if offset is None else offset)
    probabilities = logits.softmax(-1)
    residual = torch.eye(3, dtype=torch.float64)[PROBLEM.labels] - probabilities
    information = torch.einsum("nci,ncd,ndi->i", rows, softmax_curvature(probabilities), rows)
    precision = 1 / PROBLEM.variance.reshape(-1) + information
    mean = PROBLEM.mean.reshape(-1) + torch.einsum("nci,nc->i", rows, residual) / precision
    assert_near(state.belief.precision.reshape(-1), precision)
    assert_near(state.belief.mean.reshape(-1), mean)
    own = torch.einsum("nd,cd->nc", PROBLEM.design, state.belief.mean) + (0 if offset is None else offset)
    assert_near(info.change.logits, own)


def test_scores_of_one_row_are_those_of_the_rule_plain() -> None:
    one = Batch(PROBLEM.design[:1], PROBLEM.labels[:1])
    _, info = update(start(), one)
    _, plain = kalman.update(start(), one, RULES["plain"])
    for name in ("prequential_score", "nis"):
        assert_near(getattr(info, name), getattr(plain, name))
    assert_near(info.change.log_evidence, plain.change.log_evidence)


def test_one_weight_per_class_is_the_rule_plain_up_to_the_coupling() -> None:
    """With a diagonal curvature and one feature nothing is left out: the step is exact."""
    from bayes_clip.observation import Bernoulli

    state = kalman.init(PROBLEM.mean[:, :1], PROBLEM.variance[:, :1], "diagonal_variational")
    targets = torch.nn.functional.one_hot(PROBLEM.labels).double()
    batch = Batch(PROBLEM.design[:, :1], targets)
    natural, _ = update(state, batch, observation=Bernoulli())
    plain, _ = kalman.update(state, batch, RULES["plain"], observation=Bernoulli())
    assert_near(natural.belief.mean, plain.belief.mean)
    assert_near(natural.belief.precision, plain.belief.precision)


@pytest.mark.parametrize("covariance", ["diagonal", "class_block"])
def test_other_covariances_are_refused(covariance: str) -> None:
    with pytest.raises(UserError, match="use --covariance diagonal_variational"):
        update(start(covariance), BATCH)


def test_a_jacobian_is_refused() -> None:
    state = kalman.init(PROBLEM.mean.reshape(-1), PROBLEM.variance.reshape(-1), "diagonal_variational")
    with pytest.raises(UserError, match="needs a linear head; use --rule plain"):
        update(state, Batch(jacobian(PROBLEM.design, 3), PROBLEM.labels))


def test_learns_labels_one_at_a_time() -> None:
    task = tiny_task(shots=6)
    asked = FitSettings(covariance="diagonal_variational", rule="natural_gradient", batch_size=1)
    posterior = fit(task, asked).posterior
    learned = posterior.predict(task.query_features).probabilities.argmax(-1) == task.query_labels
    untrained = fit(task, FitSettings(engine="zero_shot")).posterior.predict(task.query_features)
    assert learned.double().mean() > (untrained.probabilities.argmax(-1) == task.query_labels).double().mean()
