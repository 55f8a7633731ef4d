from __future__ import annotations

import torch
from dense_twins import dense_precision, plain_step, precision_update, rows_of
from naive_twins import softmax_curvature
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.gaussian.diagonal import Diagonal
from bayes_clip.gaussian.variational_diagonal import VariationalDiagonal


def naive_step(mean: Tensor, precision: Tensor, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The dense update of a diagonal prior, and the diagonal of its precision."""
    logits = torch.stack([row @ mean for row in rows])
    probabilities = logits.softmax(-1)
    residual = torch.eye(logits.shape[1], dtype=torch.float64)[labels] - probabilities
    moved, posterior = precision_update(
        mean, torch.diag(precision), rows, softmax_curvature(probabilities), residual
    )
    return moved, posterior.diagonal()


def test_two_batches_of_a_linear_head_are_the_naive_twin() -> None:
    first, second = small_problem(seed=3), small_problem(rows=9, seed=4)
    belief = VariationalDiagonal.from_prior(first.mean, first.variance)
    mean, precision = first.mean.reshape(-1), 1 / first.variance.reshape(-1)
    for batch in (first, second):
        belief = plain_step(belief, batch.design, batch.labels)
        mean, precision = naive_step(mean, precision, rows_of(batch.design, 3), batch.labels)
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(belief.precision.reshape(-1), precision)


def test_two_batches_under_a_jacobian_are_the_naive_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, precision = torch.zeros(7).double(), torch.full((7,), 2.0).double()
    belief = VariationalDiagonal.from_prior(mean, 1 / precision)
    for _ in range(2):
        rows = torch.randn(5, 3, 7, generator=generator, dtype=torch.float64)
        labels = torch.tensor([0, 1, 2, 0, 1])
        belief = plain_step(belief, rows, labels)
        mean, precision = naive_step(mean, precision, rows, labels)
        assert_near(belief.mean, mean)
        assert_near(belief.precision, precision)


def test_logits_under_a_jacobian_have_the_moments_and_draws_of_the_dense_covariance() -> None:
    rows = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    belief = VariationalDiagonal(torch.arange(7).double(), torch.arange(1, 8).double())
    wanted = rows @ torch.linalg.inv(dense_precision(belief)) @ rows.mT
    mean, variance = belief.logit_moments(rows)
    assert_near(mean, rows @ belief.mean)
    assert_near(variance, wanted.diagonal(dim1=1, dim2=2))
    units = torch.eye(3, dtype=torch.float64)[:, None, :].expand(-1, 4, -1)
    root = (belief.predicted_logits(rows).draw(units) - mean).permute(1, 2, 0)
    assert_near(root @ root.mT, wanted)


def test_it_is_narrower_than_the_decoupled_form() -> None:
    problem = small_problem(seed=5)
    narrow = plain_step(
        VariationalDiagonal.from_prior(problem.mean, problem.variance), problem.design, problem.labels
    )
    wide = plain_step(Diagonal.from_prior(problem.mean, problem.variance), problem.design, problem.labels)
    assert bool((narrow.variance < wide.variance).all())


def test_a_time_step_is_exact_also_with_a_decay_for_every_weight() -> None:
    problem = small_problem(seed=5)
    belief = VariationalDiagonal(problem.mean, 1 / problem.variance)
    decay = torch.linspace(0.5, 1.0, 15, dtype=torch.float64).reshape(3, 5)
    for step in (0.9, decay):
        moved = belief.diffuse(torch.ones_like(problem.mean), step, 0.1 * problem.variance)
        scale = torch.as_tensor(step, dtype=torch.float64).expand(3, 5)
        assert_near(moved.variance, (scale.square() + 0.1) * problem.variance)
        assert_near(moved.mean, 1 + scale * (problem.mean - 1))
