from __future__ import annotations

import pytest
import torch
from naive_twins import diagonal_blocks, softmax_curvature
from small_problems import assert_near
from torch import Tensor

from bayes_clip.curvature import SeparateCurvature, SoftmaxCurvature
from bayes_clip.gaussian.gram import BlockGram, DenseGram

CLASSES, ROWS = 4, 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive_definite(*batch: int, size: int, seed: int = 0) -> Tensor:
    root = random(*batch, size, size, seed=seed)
    return root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)


def flat(rows: Tensor) -> Tensor:
    return rows.T.reshape(-1)


def spread(blocks: Tensor) -> Tensor:
    """Per-row blocks (b, C, C) as one (C b, C b) matrix, element by element."""
    rows, classes = blocks.shape[:2]
    matrix = torch.zeros(classes * rows, classes * rows, dtype=blocks.dtype)
    for row in range(rows):
        for i in range(classes):
            for j in range(classes):
                matrix[i * rows + row, j * rows + row] = blocks[row, i, j]
    return matrix


@pytest.fixture
def blocks() -> Tensor:
    return positive_definite(CLASSES, size=ROWS)


@pytest.fixture
def pair(blocks: Tensor) -> tuple[BlockGram, DenseGram]:
    """The same block-diagonal Gram matrix in both forms."""
    return BlockGram(blocks), DenseGram(torch.block_diag(*blocks), CLASSES)


@pytest.fixture
def dense() -> DenseGram:
    return DenseGram(positive_definite(size=CLASSES * ROWS, seed=1), CLASSES)


@pytest.fixture
def probabilities() -> Tensor:
    return (2 * random(ROWS, CLASSES, seed=2)).softmax(-1)


EXCESS, RESIDUAL = random(ROWS, CLASSES, seed=3), random(ROWS, CLASSES, seed=4)


def test_newton_solves_its_equation(dense: DenseGram, probabilities: Tensor) -> None:
    curvature = spread(softmax_curvature(probabilities))
    system = torch.eye(CLASSES * ROWS, dtype=torch.float64) + curvature @ dense.matrix
    wanted = torch.linalg.solve(system, curvature @ flat(EXCESS) + flat(RESIDUAL))
    assert_near(flat(dense.newton(SoftmaxCurvature(probabilities), EXCESS, RESIDUAL)), wanted)


def test_softmax_downdate_is_the_inverse_formula(dense: DenseGram, probabilities: Tensor) -> None:
    curvature = spread(softmax_curvature(probabilities))
    system = torch.eye(CLASSES * ROWS, dtype=torch.float64) + curvature @ dense.matrix
    assert_near(dense.downdate(SoftmaxCurvature(probabilities)), torch.linalg.inv(system) @ curvature)
    assert_near(
        dense.log_determinant(SoftmaxCurvature(probabilities)), torch.linalg.slogdet(system).logabsdet
    )


def test_block_newton_keeps_the_coupling_of_the_classes(
    pair: tuple[BlockGram, DenseGram], probabilities: Tensor
) -> None:
    block, dense = pair
    assert_near(block.times(EXCESS), dense.times(EXCESS))
    assert_near(
        block.newton(SoftmaxCurvature(probabilities), EXCESS, RESIDUAL),
        dense.newton(SoftmaxCurvature(probabilities), EXCESS, RESIDUAL),
    )
    assert_near(
        block.log_determinant(SoftmaxCurvature(probabilities)),
        dense.log_determinant(SoftmaxCurvature(probabilities)),
    )


def test_block_downdate_is_the_diagonal_of_the_coupled_one(
    pair: tuple[BlockGram, DenseGram], probabilities: Tensor
) -> None:
    block, dense = pair
    wanted = diagonal_blocks(dense.downdate(SoftmaxCurvature(probabilities)), CLASSES)
    assert_near(block.downdate(SoftmaxCurvature(probabilities)), wanted)
    decoupled = block.site_downdate(probabilities * (1 - probabilities))
    assert float((decoupled - wanted).abs().max()) > 1e-3, "the coupling must matter in this test"


def test_diagonal_sites_agree_between_the_two_forms(pair: tuple[BlockGram, DenseGram]) -> None:
    block, dense = pair
    precision = random(ROWS, CLASSES, seed=5).square()
    block_dual, deviation = block.given_sites(precision, RESIDUAL, EXCESS)
    dual, root = dense.given_sites(torch.diag_embed(precision), RESIDUAL, EXCESS)
    assert_near(block_dual, dual)
    assert_near(deviation.square(), (root @ root.mT).diagonal(dim1=1, dim2=2))
    assert_near(
        block.site_downdate(precision),
        diagonal_blocks(dense.site_downdate(torch.diag_embed(precision)), CLASSES),
    )
    assert_near(block.site_times(precision, EXCESS), dense.site_times(torch.diag_embed(precision), EXCESS))


def test_given_sites_is_the_gaussian_posterior(dense: DenseGram) -> None:
    sites = positive_definite(ROWS, size=CLASSES, seed=6)
    dual, root = dense.given_sites(sites, RESIDUAL, EXCESS)
    posterior = torch.linalg.inv(torch.linalg.inv(dense.matrix) + spread(sites))
    mean = posterior @ (torch.linalg.solve(dense.matrix, flat(EXCESS)) + flat(RESIDUAL))
    assert_near(flat(EXCESS + dense.times(dual)), mean)
    assert_near(dense.matrix - dense.matrix @ dense.site_downdate(sites) @ dense.matrix, posterior)
    rows = [posterior[row::ROWS, row::ROWS] for row in range(ROWS)]
    assert_near(root @ root.mT, torch.stack(rows))


def test_dense_deviation_is_a_root_of_each_rows_covariance(dense: DenseGram) -> None:
    root = dense.deviation()
    assert_near(root @ root.mT, torch.stack([dense.matrix[row::ROWS, row::ROWS] for row in range(ROWS)]))


def test_block_deviation_is_the_root_of_the_diagonal(pair: tuple[BlockGram, DenseGram]) -> None:
    assert_near(pair[0].deviation().T.reshape(-1).square(), pair[1].matrix.diagonal())


@pytest.mark.parametrize("form", [0, 1])
def test_sites_are_found_again_and_taken_out(
    pair: tuple[BlockGram, DenseGram], form: int, probabilities: Tensor
) -> None:
    """prior Gram −(B)→ posterior; site_of(B) is the site, and without(site) leads back to the prior."""
    gram = pair[form]
    prior = gram.blocks if isinstance(gram, BlockGram) else gram.matrix
    downdate = gram.downdate(SoftmaxCurvature(probabilities))
    site = gram.site_of(downdate)
    posterior = prior - prior @ downdate @ prior
    assert_near(torch.linalg.inv(posterior), torch.linalg.inv(prior) + site, 1e-8)
    after = BlockGram(posterior) if isinstance(gram, BlockGram) else DenseGram(posterior, CLASSES)
    assert_near(posterior + posterior @ after.without(site) @ posterior, prior)


def test_newton_is_finite_where_probabilities_are_certain(pair: tuple[BlockGram, DenseGram]) -> None:
    certain = SoftmaxCurvature(torch.eye(CLASSES, dtype=torch.float64)[torch.arange(ROWS) % CLASSES])
    for gram in pair:
        assert gram.newton(certain, EXCESS, RESIDUAL).isfinite().all()
        assert_near(gram.downdate(certain), torch.zeros_like(gram.downdate(certain)))


def test_separate_curvature_is_the_same_in_both_forms(pair: tuple[BlockGram, DenseGram]) -> None:
    """Independent outputs couple nothing: the dense formulas, block by block."""
    block, dense = pair
    curvature = SeparateCurvature(random(ROWS, CLASSES, seed=5).square())
    assert_near(block.newton(curvature, EXCESS, RESIDUAL), dense.newton(curvature, EXCESS, RESIDUAL))
    assert_near(block.downdate(curvature), diagonal_blocks(dense.downdate(curvature), CLASSES))
    assert_near(block.log_determinant(curvature), dense.log_determinant(curvature))
    assert_near(block.row_covariance(), dense.row_covariance())
