"""What every family of beliefs must do, and the identities between them."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from naive_twins import dense_update, diagonal_blocks, extended_kalman_update, jacobian
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.gaussian import FAMILIES, Belief, ClassBlock, Diagonal, Full
from bayes_clip.observation import SOFTMAX

FAMILY_NAMES = ("class_block", "diagonal", "full")  # those in precision form have files of their own


def dense_covariance(belief: Belief) -> Tensor:
    """The covariance of the flat weights (C D, C D), whatever the family."""
    if isinstance(belief, Full):
        return belief.covariance
    if isinstance(belief, ClassBlock):
        return torch.block_diag(*belief.covariance)
    assert isinstance(belief, Diagonal)
    return torch.diag(belief.variance.reshape(-1))


def prior(problem: SmallProblem, family: str) -> Belief:
    return FAMILIES[family].from_prior(problem.mean, problem.variance)


def plain_step(belief: Belief, problem: SmallProblem) -> Belief:
    """The extended Kalman update through the family's own projection."""
    projection = belief.project(problem.design)
    curvature = SOFTMAX.curvature(projection.logits)
    residual = SOFTMAX.target(problem.labels, projection.logits) - SOFTMAX.response(projection.logits)
    dual = projection.gram.newton(curvature, torch.zeros_like(residual), residual)
    return belief.condition(projection, dual, projection.gram.downdate(curvature))


def correlated(family: str) -> Belief:
    """A belief of this family that a batch has already shaped."""
    problem = small_problem(seed=7)
    return plain_step(prior(problem, family), problem)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_projection_is_the_gaussian_of_the_logits(family: str) -> None:
    belief, design = correlated(family), small_problem(rows=4, seed=1).design
    classes = len(belief.mean)
    rows = jacobian(design, classes).transpose(0, 1).reshape(classes * len(design), -1)
    wanted = rows @ dense_covariance(belief) @ rows.mT
    projection = belief.project(design)
    gram = projection.gram
    assert_near(projection.logits, design @ belief.mean.mT)
    if family == "full":
        assert_near(gram.matrix, wanted)
    else:
        assert_near(torch.block_diag(*gram.blocks), wanted)
    mean, variance = belief.logit_moments(design)
    assert_near(mean, projection.logits)
    assert_near(variance.T.reshape(-1), wanted.diagonal())


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_draws_of_logits_have_the_covariance_of_the_projection(family: str) -> None:
    """Draws are linear in the noise, so unit vectors as noise read off the root of the covariance."""
    belief, design = correlated(family), small_problem(rows=70, seed=1).design
    classes = len(belief.mean)
    units = torch.eye(classes, dtype=torch.float64)[:, None, :].expand(-1, len(design), -1)
    root = (belief.predicted_logits(design).draw(units) - design @ belief.mean.mT).permute(1, 2, 0)
    rows = jacobian(design, classes)
    assert_near(root @ root.mT, rows @ dense_covariance(belief) @ rows.mT)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_one_time_step_decays_to_the_prior_mean_and_adds_noise(family: str) -> None:
    belief, problem = correlated(family), small_problem(seed=2)
    moved = belief.diffuse(problem.mean, 0.9, problem.variance)
    assert_near(moved.mean, problem.mean + 0.9 * (belief.mean - problem.mean))
    noise = torch.diag(problem.variance.reshape(-1))
    assert_near(dense_covariance(moved), 0.81 * dense_covariance(belief) + noise)


def test_full_is_the_textbook_update_twice_over() -> None:
    """The second batch meets a correlated belief."""
    first, second = small_problem(seed=3), small_problem(rows=9, seed=4)
    belief: Belief = prior(first, "full")
    mean, covariance = first.mean, torch.diag(first.variance.reshape(-1))
    for batch in (first, second):
        belief = plain_step(belief, batch)
        mean, covariance = extended_kalman_update(mean, covariance, batch.design, batch.labels)
        mean = mean.reshape(first.mean.shape)
        assert_near(belief.mean, mean)
        assert_near(dense_covariance(belief), covariance)


def test_class_block_keeps_the_diagonal_blocks_of_the_coupled_posterior() -> None:
    """Each of two steps: dense coupled update of the block-diagonal belief, then the blocks alone."""
    first, second = small_problem(classes=4, seed=3), small_problem(classes=4, rows=9, seed=4)
    belief: Belief = prior(first, "class_block")
    for batch in (first, second):
        mean, covariance = extended_kalman_update(
            belief.mean, dense_covariance(belief), batch.design, batch.labels
        )
        belief = plain_step(belief, batch)
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(belief.covariance, diagonal_blocks(covariance, 4))
        off_blocks = covariance - torch.block_diag(*diagonal_blocks(covariance, 4))
        assert float(off_blocks.abs().max()) > 1e-3, "the classes must be coupled in this test"


def test_diagonal_keeps_the_marginal_variances_of_the_coupled_posterior() -> None:
    first, second = small_problem(seed=3), small_problem(rows=9, seed=4)
    belief: Belief = prior(first, "diagonal")
    for batch in (first, second):
        mean, covariance = extended_kalman_update(
            belief.mean, dense_covariance(belief), batch.design, batch.labels
        )
        belief = plain_step(belief, batch)
        assert_near(belief.mean.reshape(-1), mean)
        assert_near(belief.variance.reshape(-1), covariance.diagonal())


def test_families_agree_on_the_mean_of_the_first_batch() -> None:
    problem = small_problem(seed=5)
    means = [plain_step(prior(problem, family), problem).mean for family in FAMILY_NAMES]
    assert_near(means[0], means[1])
    assert_near(means[0], means[2])


def gaussian_step(belief: Belief, design: Tensor, values: Tensor, noise: float) -> Belief:
    """Condition on Gaussian observations of the logits, `values` (b, C) with variance `noise`."""
    projection = belief.project(design)
    precision = torch.full_like(values, 1 / noise)
    sites = precision if not isinstance(belief, Full) else torch.diag_embed(precision)
    dual, _ = projection.gram.given_sites(sites, values / noise, projection.logits)
    return belief.condition(projection, dual, projection.gram.site_downdate(sites))


@pytest.mark.parametrize("family", ["full", "class_block"])
def test_gaussian_observations_batch_sequence_and_closed_form_agree(family: str) -> None:
    problem = small_problem(rows=10, seed=6)
    values = problem.logits + torch.randn(10, 3, generator=torch.Generator().manual_seed(0)).double()
    start = prior(problem, family)
    batch = gaussian_step(start, problem.design, values, 0.3)
    for order in (range(10), [3, 9, 0, 7, 1, 8, 2, 6, 4, 5]):
        sequential = start
        for row in order:
            sequential = gaussian_step(sequential, problem.design[row : row + 1], values[row : row + 1], 0.3)
        assert_near(sequential.mean, batch.mean)
        assert_near(dense_covariance(sequential), dense_covariance(batch))
    curvature = torch.eye(3, dtype=torch.float64).expand(10, 3, 3) / 0.3
    residual = (values - problem.logits) / 0.3
    mean, covariance = dense_update(
        problem.mean.reshape(-1), dense_covariance(start), problem.design, curvature, residual
    )
    assert_near(batch.mean.reshape(-1), mean)
    assert_near(dense_covariance(batch), covariance)


def test_full_with_dynamics_is_pyros_gaussian_hmm() -> None:
    """θ decays to zero with process noise before every observation; a new design row at every step."""
    steps, classes, features, decay, noise = 7, 2, 2, 0.9, 0.4
    problem = small_problem(classes, features, steps, seed=8)
    values = torch.randn(steps, classes, generator=torch.Generator().manual_seed(1)).double()
    still = torch.zeros_like(problem.mean)
    process_noise = 0.3 * problem.variance
    belief: Belief = Full.from_prior(still, problem.variance)
    for row in range(steps):
        belief = belief.diffuse(still, decay, process_noise)
        belief = gaussian_step(belief, problem.design[row : row + 1], values[row : row + 1], noise)

    size = classes * features
    zero, eye = torch.zeros(size).double(), torch.eye(size).double()
    hmm = dist.GaussianHMM(
        dist.Normal(zero, problem.variance.reshape(-1).sqrt()).to_event(1),
        decay * eye,
        dist.Normal(zero, process_noise.reshape(-1).sqrt()).to_event(1),
        jacobian(problem.design, classes).mT,  # (T, hidden, observed): Pyro multiplies from the right
        dist.Normal(torch.zeros(classes).double(), noise**0.5).to_event(1),
        duration=steps,
    )
    last = hmm.filter(values)
    assert_near(belief.mean.reshape(-1), last.mean)
    assert_near(dense_covariance(belief), last.covariance_matrix)
