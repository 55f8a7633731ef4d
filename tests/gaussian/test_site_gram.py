from __future__ import annotations

import pytest
import torch
from naive_twins import softmax_curvature
from small_problems import assert_near
from torch import Tensor

from bayes_clip.curvature import Curvature, SeparateCurvature, SoftmaxCurvature
from bayes_clip.gaussian.gram import BlockGram, DenseGram
from bayes_clip.gaussian.site_gram import DiagonalSiteGram, SiteGram, curvature_root, information_diagonal

CLASSES, ROWS = 4, 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive_definite(*batch: int, size: int, seed: int = 0) -> Tensor:
    root = random(*batch, size, size, seed=seed)
    return root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)


PROBABILITIES = (2 * random(ROWS, CLASSES, seed=2)).softmax(-1)
CURVATURES = (SoftmaxCurvature(PROBABILITIES), SeparateCurvature(PROBABILITIES))
EXCESS, RESIDUAL = random(ROWS, CLASSES, seed=3), random(ROWS, CLASSES, seed=4)


@pytest.fixture
def pair() -> tuple[SiteGram, DenseGram]:
    """The same Gram matrix, by Cholesky factors of the sites and by general solves."""
    matrix = positive_definite(size=CLASSES * ROWS, seed=1)
    return SiteGram(matrix, CLASSES), DenseGram(matrix, CLASSES)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_newton_and_evidence_are_those_of_the_dense_gram(
    pair: tuple[SiteGram, DenseGram], curvature: Curvature
) -> None:
    sites, dense = pair
    assert_near(sites.newton(curvature, EXCESS, RESIDUAL), dense.newton(curvature, EXCESS, RESIDUAL))
    assert_near(sites.log_determinant(curvature), dense.log_determinant(curvature))


def test_posterior_logits_given_sites_are_those_of_the_dense_gram(pair: tuple[SiteGram, DenseGram]) -> None:
    sites, dense = pair
    precision = positive_definite(ROWS, size=CLASSES, seed=6)
    dual, root = sites.given_sites(precision, EXCESS, RESIDUAL)
    wanted_dual, wanted_root = dense.given_sites(precision, EXCESS, RESIDUAL)
    assert_near(dual, wanted_dual)
    assert_near(root @ root.mT, wanted_root @ wanted_root.mT)


def test_downdates_are_the_sites_themselves(pair: tuple[SiteGram, DenseGram]) -> None:
    sites, _ = pair
    assert_near(sites.downdate(CURVATURES[0]), softmax_curvature(PROBABILITIES))
    assert_near(sites.downdate(CURVATURES[1]), torch.diag_embed(PROBABILITIES))
    precision = positive_definite(ROWS, size=CLASSES, seed=6)
    assert sites.site_downdate(precision) is precision


@pytest.mark.parametrize("curvature", CURVATURES)
def test_diagonal_sites_keep_the_coupled_newton_step_and_evidence(curvature: Curvature) -> None:
    blocks = positive_definite(CLASSES, size=ROWS)
    sites, coupled = DiagonalSiteGram(blocks), BlockGram(blocks)
    assert_near(sites.newton(curvature, EXCESS, RESIDUAL), coupled.newton(curvature, EXCESS, RESIDUAL))
    assert_near(sites.log_determinant(curvature), coupled.log_determinant(curvature))
    assert_near(sites.downdate(curvature), curvature.dense().diagonal(dim1=1, dim2=2))


def test_float64_keeps_the_kind() -> None:
    blocks = positive_definite(CLASSES, size=ROWS).float()
    whole = SiteGram(torch.block_diag(*blocks), CLASSES).double()
    own = DiagonalSiteGram(blocks).double()
    assert isinstance(whole, SiteGram) and whole.matrix.dtype == torch.float64
    assert isinstance(own, DiagonalSiteGram) and own.blocks.dtype == torch.float64


def test_root_of_the_softmax_curvature_also_where_a_class_is_certain() -> None:
    certain = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    for probabilities in (PROBABILITIES, certain):
        root = curvature_root(SoftmaxCurvature(probabilities))
        assert_near(root @ root.mT, softmax_curvature(probabilities))


@pytest.mark.parametrize("diagonal_sites", [True, False])
@pytest.mark.parametrize("jacobian", [True, False])
def test_information_diagonal_is_that_of_the_written_out_sum(jacobian: bool, diagonal_sites: bool) -> None:
    design = random(ROWS, CLASSES, 7, seed=7) if jacobian else random(ROWS, 3, seed=7)
    eye = torch.eye(CLASSES, dtype=torch.float64)
    rows = design if jacobian else torch.einsum("ck,nd->nckd", eye, design).reshape(ROWS, CLASSES, -1)
    sites = positive_definite(ROWS, size=CLASSES, seed=6)
    if diagonal_sites:
        sites = torch.diag_embed(sites.diagonal(dim1=1, dim2=2))
    wanted = sum(row.mT @ site @ row for row, site in zip(rows, sites, strict=True)).diagonal()
    given = sites.diagonal(dim1=1, dim2=2) if diagonal_sites else sites
    assert_near(information_diagonal(design, given).reshape(-1), wanted)
