from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from small_problems import assert_near

from bayes_clip.gaussian.matrices import log_diagonal, removed, root_of, symmetric


def covariances(seed: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(3, 4, rank, generator=generator, dtype=torch.float64)
    return half @ half.mT


@given(st.integers(0, 99), st.integers(1, 6))
def test_a_root_times_itself_is_the_covariance_even_a_singular_one(seed: int, rank: int) -> None:
    wanted = covariances(seed, rank)
    root = root_of(wanted)
    assert_near(root @ root.mT, wanted)
    assert_near(root, root.mT)


@given(st.integers(0, 99))
def test_what_was_removed_solves_its_equation(seed: int) -> None:
    gram, site = covariances(seed, 4), 1e-2 * covariances(seed + 100, 4)
    found = removed(gram, site)
    assert_near(found - site @ gram @ found, site)
    assert_near(symmetric(found), found)


def test_log_diagonal_of_a_factor_is_half_the_log_determinant() -> None:
    matrices = covariances(0, 6) + torch.eye(4, dtype=torch.float64)
    assert_near(2 * log_diagonal(torch.linalg.cholesky(matrices)), matrices.logdet().sum())
