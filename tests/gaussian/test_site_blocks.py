from __future__ import annotations

import pytest
import torch
from small_problems import assert_near
from torch import Tensor

from bayes_clip.gaussian import site_blocks
from bayes_clip.gaussian.matrices import inverted
from bayes_clip.gaussian.site_blocks import block_times, inverses, joined, posteriors


def positive_definite(classes: int, rows: int) -> Tensor:
    root = torch.randn(classes, rows, rows, generator=torch.Generator().manual_seed(rows)).double()
    return root @ root.mT / rows + 0.1 * torch.eye(rows).double()


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("rows", [1, 5, 32, 33, 47, 100])
def test_inverse_and_determinant_by_halves(classes: int, rows: int) -> None:
    matrix = positive_definite(classes, rows)
    inverse, log_determinant = inverted(matrix)
    assert_near(inverse, torch.linalg.inv(matrix))
    assert_near(log_determinant, torch.logdet(matrix).sum())


@pytest.mark.parametrize("rows", [1, 5, 47])
def test_a_matrix_that_is_not_positive_definite_has_no_number_for_an_inverse(rows: int) -> None:
    matrix = positive_definite(3, rows)
    matrix[1] *= -1
    _, log_determinant = inverted(matrix)
    assert log_determinant.isnan()


@pytest.mark.parametrize("entries", [1, 10**6])
def test_sites_class_by_class_are_what_the_definitions_say(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where classes are taken one at a time, and where a site says nothing at all."""
    monkeypatch.setattr(site_blocks, "CACHED", entries)
    blocks, generator = positive_definite(4, 37), torch.Generator().manual_seed(1)
    weights = torch.rand(4, 37, generator=generator).double()
    weights[:, ::3] = 0
    pulls = torch.randn(4, 37, generator=generator).double()
    system = torch.eye(37).double() + torch.diag_embed(weights) @ blocks
    wanted = torch.linalg.solve(system, torch.diag_embed(weights))
    parts, log_determinant = inverses(blocks, weights)
    assert len(parts) == (4 if entries == 1 else 1)
    assert_near(joined(parts), wanted)
    assert_near(log_determinant, torch.logdet(system).sum())
    excess, variance = posteriors(blocks, weights, pulls)
    dual = torch.linalg.solve(system, pulls[..., None])
    assert_near(excess, (blocks @ dual)[..., 0])
    assert_near(variance, (blocks - blocks @ wanted @ blocks).diagonal(dim1=1, dim2=2))
    assert_near(block_times(blocks, pulls), torch.einsum("cij,cj->ci", blocks, pulls))
