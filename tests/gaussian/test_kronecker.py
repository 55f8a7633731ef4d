from __future__ import annotations

import pytest
import torch
from dense_twins import dense_precision, plain_step, precision_update, rows_of
from naive_twins import softmax_curvature
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian.full import Full
from bayes_clip.gaussian.kronecker import Kronecker

CLASSES, FEATURES = 3, 5
PROBLEM = small_problem(CLASSES, FEATURES, seed=3)
BY_CLASS = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
BY_FEATURE = torch.tensor([0.3, 0.6, 0.9, 1.2, 1.5], dtype=torch.float64)


def start(even: bool = False) -> Kronecker:
    variance = torch.full_like(PROBLEM.mean, 0.5) if even else BY_CLASS[:, None] * BY_FEATURE
    return Kronecker.from_prior(PROBLEM.mean, variance)


def learned(even: bool = False) -> Kronecker:
    belief = start(even)
    for seed in (3, 4):
        batch = small_problem(CLASSES, FEATURES, 8, seed=seed)
        belief = plain_step(belief, batch.design, batch.labels)
    return belief


def test_batches_are_the_naive_twin() -> None:
    """Sums of curvature and of x xᵀ row by row; the mean by a dense update of the family's precision."""
    belief = start()
    curvature, moment, rows = torch.zeros(3, 3).double(), torch.zeros(5, 5).double(), 0
    for seed in (3, 4):
        batch = small_problem(CLASSES, FEATURES, 8, seed=seed)
        probabilities = (batch.design @ belief.mean.mT).softmax(-1)
        residual = torch.eye(3, dtype=torch.float64)[batch.labels] - probabilities
        per_row = softmax_curvature(probabilities)
        mean, _ = precision_update(
            belief.mean.reshape(-1), dense_precision(belief), rows_of(batch.design, 3), per_row, residual
        )
        belief = plain_step(belief, batch.design, batch.labels)
        for row, one in zip(batch.design, per_row, strict=True):
            curvature, moment, rows = curvature + one, moment + torch.outer(row, row), rows + 1
        prior = torch.kron(torch.diag(1 / BY_CLASS), torch.diag(1 / BY_FEATURE))
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(dense_precision(belief), prior + torch.kron(curvature, moment) / rows)


@pytest.mark.parametrize("batches", [1, 3])
def test_on_kronecker_data_it_is_the_full_covariance(batches: int) -> None:
    """All rows share one curvature, in one batch and in three: nothing is approximated."""
    belief, full = start(), Full.from_prior(PROBLEM.mean, BY_CLASS[:, None] * BY_FEATURE)
    problem = small_problem(CLASSES, FEATURES, 9, seed=5)
    curvature = softmax_curvature(torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64))
    linear = problem.logits
    for part in torch.arange(9).chunk(batches):
        sites = curvature.expand(len(part), -1, -1)
        projections = belief.project(problem.design[part]), full.project(problem.design[part])
        grams = [projection.gram for projection in projections]
        duals = [
            gram.given_sites(sites, linear[part], projection.logits)[0]
            for gram, projection in zip(grams, projections, strict=True)
        ]
        belief = belief.condition(projections[0], duals[0], grams[0].site_downdate(sites))
        full = full.condition(projections[1], duals[1], grams[1].site_downdate(sites))
        assert_near(belief.mean, full.mean)
        assert_near(torch.linalg.inv(dense_precision(belief)), full.covariance)


def test_its_axes_are_those_of_its_sums() -> None:
    belief = learned()
    axes = torch.kron(belief.class_axes, belief.feature_axes)
    covariance = (axes * belief.spread.reshape(-1)) @ axes.mT
    assert_near(covariance, torch.linalg.inv(dense_precision(belief)))


def test_projection_moments_and_draws_are_those_of_the_dense_covariance() -> None:
    belief, design = learned(), small_problem(rows=4, seed=1).design
    covariance = torch.linalg.inv(dense_precision(belief))
    rows = rows_of(design, 3)
    flat = rows.transpose(0, 1).reshape(12, -1)
    assert_near(belief.project(design).gram.matrix, flat @ covariance @ flat.mT)
    wanted = rows @ covariance @ rows.mT
    mean, variance = belief.logit_moments(design)
    assert_near(mean, design @ belief.mean.mT)
    assert_near(variance, wanted.diagonal(dim1=1, dim2=2))
    assert_near(belief.logit_covariance(design), wanted)
    units = torch.eye(3, dtype=torch.float64)[:, None, :].expand(-1, 4, -1)
    root = (belief.predicted_logits(design).draw(units) - mean).permute(1, 2, 0)
    assert_near(root @ root.mT, wanted)


def test_without_noise_a_time_step_is_exact() -> None:
    belief = learned()
    moved = belief.diffuse(PROBLEM.mean, 0.8, torch.zeros_like(PROBLEM.mean))
    assert_near(dense_precision(moved), dense_precision(belief) / 0.64)
    assert_near(moved.mean, PROBLEM.mean + 0.8 * (belief.mean - PROBLEM.mean))
    assert_near(moved.rows, belief.rows / 0.64)


@pytest.mark.parametrize("decay, noise", [(0.9, 0.19), (1.0, 0.3), (0.7, 0.1)])
def test_with_noise_the_prior_and_the_sums_over_each_basis_are_kept(decay: float, noise: float) -> None:
    """In the axes, the precision that γ² P + q P₀ adds to the prior's has the same sums over rows and columns
    as the product that stands for it, and without data the step is exact."""
    prior = BY_CLASS[:, None] * BY_FEATURE
    empty = start().diffuse(PROBLEM.mean, decay, noise * prior)
    flat = torch.diag(prior.reshape(-1))
    assert_near(torch.linalg.inv(dense_precision(empty)), (decay**2 + noise) * flat)
    belief = learned()
    moved = belief.diffuse(PROBLEM.mean, decay, noise * prior)
    exact = torch.linalg.inv(decay**2 * torch.linalg.inv(dense_precision(belief)) + noise * flat)
    axes = torch.kron(belief.class_axes, belief.feature_axes)
    added, wanted = (
        (axes.mT @ precision @ axes - torch.eye(15).double() / (decay**2 + noise)).diagonal().reshape(3, 5)
        for precision in (dense_precision(moved), exact)
    )
    assert_near(added.sum(0), wanted.sum(0))
    assert_near(added.sum(1), wanted.sum(1))
    assert float((added - wanted).abs().max()) > 1e-3, "the step must be approximate in this test"
    assert 0 < float(moved.rows) < float(belief.rows) / decay**2


def test_noise_on_noise_is_measured_against_the_prior_it_began_with() -> None:
    prior = BY_CLASS[:, None] * BY_FEATURE
    belief = start()
    for _ in range(3):
        belief = belief.diffuse(PROBLEM.mean, 1.0, 0.5 * prior)
    assert_near(torch.linalg.inv(dense_precision(belief)), 2.5 * torch.diag(prior.reshape(-1)))


@pytest.mark.parametrize(
    "decay, noise, message",
    [
        (torch.linspace(0.5, 1, 15).reshape(3, 5).double(), torch.zeros(3, 5).double(), "one decay"),
        (0.9, torch.linspace(0, 1, 15).reshape(3, 5).double(), "one process noise"),
    ],
)
def test_uneven_time_steps_are_refused(decay: float | Tensor, noise: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=f"{message} for all weights; use --covariance"):
        start().diffuse(PROBLEM.mean, decay, noise)


def test_priors_that_are_no_product_and_weights_of_no_head_are_refused() -> None:
    with pytest.raises(UserError, match="no product"):
        Kronecker.from_prior(PROBLEM.mean, torch.arange(1, 16).reshape(3, 5).double())
    with pytest.raises(UserError, match=r"weights .* of a linear head"):
        Kronecker.from_prior(PROBLEM.mean.reshape(-1), torch.ones(15).double())
    with pytest.raises(UserError, match="Jacobian"):
        start().project(torch.zeros(2, 3, 15).double())
