from __future__ import annotations

import pytest
import torch
from largest_tensor import LargestTensor
from small_problems import assert_near
from torch import Tensor

from bayes_clip.gaussian.quadratic import FEW_ROWS, PANEL, PANELS, diagonal_moments, quadratic_forms


def problem(rows: int, classes: int, features: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(features)
    design = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    root = torch.randn(classes, features, features, generator=generator, dtype=torch.float64)
    return design, root @ root.mT / features


@pytest.mark.parametrize("features", [1, 5, PANEL, PANEL + 1, 3 * PANEL - 7, PANEL * PANELS + 1])
@pytest.mark.parametrize("budget", [2**27, 2**20])
def test_half_of_each_matrix_is_enough(features: int, budget: int) -> None:
    design, matrices = problem(FEW_ROWS, 2, features)
    wanted = torch.einsum("nd,cde,ne->nc", design, matrices, design)
    assert_near(quadratic_forms(design, matrices, budget), wanted)
    assert_near(quadratic_forms(design[:3], matrices, budget), wanted[:3])
    assert_near(
        quadratic_forms(design, matrices.tril(), budget), wanted - _above_the_panels(design, matrices)
    )


def _above_the_panels(design: Tensor, matrices: Tensor) -> Tensor:
    """What zeroing the entries above the diagonal loses: of these, those inside a panel alone are read."""
    features = design.shape[1]
    panel = torch.arange(features) // max(PANEL, -(-features // PANELS))
    inside = (panel[:, None] == panel) & torch.ones(features, features).triu(1).bool()
    return torch.einsum("nd,cde,ne->nc", design, matrices * inside, design)


def test_the_matrices_may_be_a_view() -> None:
    design, matrices = problem(4, 3, 6)
    whole = torch.block_diag(*matrices)
    blocks = whole.reshape(3, 6, 3, 6).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    assert_near(quadratic_forms(design, blocks), torch.einsum("nd,cde,ne->nc", design, matrices, design))


def test_no_rows() -> None:
    design, matrices = problem(2, 3, 6)
    assert quadratic_forms(design[:0], matrices).shape == (0, 3)


def test_products_stay_within_the_budget() -> None:
    design, matrices = problem(1000, 4, 40)
    with LargestTensor() as seen:
        quadratic_forms(design, matrices, budget=2**17)
    assert seen.bytes <= 2**17 < design.nbytes


def test_diagonal_moments_in_chunks() -> None:
    design, _ = problem(500, 2, 30)
    mean, variance = torch.randn(3, 30).double(), torch.rand(3, 30).double()
    with LargestTensor() as seen:
        found = diagonal_moments(design, mean, variance, budget=2**14)
    assert seen.bytes <= 2**14 < design.nbytes
    assert_near(found[0], design @ mean.mT)
    assert_near(found[1], design.square() @ variance.mT)
