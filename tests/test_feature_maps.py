"""Maps between the features of two encoders."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import assert_near
from two_encoders import isometry, random, unit_rows

from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FOLDS, STRENGTHS, fit_map


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([(6, 6), (6, 9)]), st.integers(0, 20))
def test_procrustes_finds_a_rotation_whatever_the_widths(widths: tuple[int, int], seed: int) -> None:
    narrow, wide = widths
    turn = isometry(wide, narrow, seed)
    first = unit_rows(60, narrow, seed + 1)
    forth = fit_map(first, first @ turn.mT, "procrustes")
    assert_near(forth.matrix, turn)
    assert float(forth.residual.abs().max()) < 1e-20 and forth.explained == pytest.approx(1)
    back = fit_map(first @ turn.mT, first, "procrustes")
    assert_near(back.matrix, turn.mT)
    assert float(back.residual.abs().max()) < 1e-20


def test_procrustes_leaves_out_what_the_rows_do_not_span() -> None:
    first = unit_rows(40, 4) @ isometry(9, 4).mT
    turn = isometry(9, 9)
    found = fit_map(first, first @ turn.mT, "procrustes")
    assert_near(first @ found.matrix.mT, first @ turn.mT)
    assert_near(torch.linalg.svdvals(found.matrix), torch.tensor([1.0] * 4 + [0.0] * 5).double())


def test_ridge_is_the_minimiser_of_the_penalised_squares() -> None:
    first, second = unit_rows(50, 5), unit_rows(50, 8, seed=1)
    found = fit_map(first, second, "ridge")
    assert found.strength in STRENGTHS
    penalty = found.strength * float(second.square().sum()) / 8
    matrix = found.matrix.clone().requires_grad_()
    loss = (first - second @ matrix).square().sum() + penalty * matrix.square().sum()
    (gradient,) = torch.autograd.grad(loss, matrix)
    assert float(gradient.abs().max()) < 1e-9


def test_ridge_takes_the_strength_that_predicts_left_out_rows_best() -> None:
    first = unit_rows(60, 5)
    assert fit_map(first, first @ isometry(8, 5).mT).strength == STRENGTHS[0]  # no noise: no penalty
    assert fit_map(first, unit_rows(60, 8, seed=1)).strength == STRENGTHS[-1]  # nothing but noise


@pytest.mark.parametrize("kind", ["procrustes", "ridge"])
def test_the_residual_is_that_of_rows_left_out(kind: str) -> None:
    first, second = unit_rows(40, 5), unit_rows(40, 8, seed=1)
    found = fit_map(first, second, kind)
    inside = first - second @ found.matrix
    assert float(found.residual.trace()) > float(inside.square().sum(-1).mean())
    assert float(torch.linalg.eigvalsh(found.residual).min()) > -1e-12
    assert found.explained == pytest.approx(1 - float(found.residual.trace()))


@pytest.mark.parametrize("kind", ["procrustes", "ridge"])
def test_the_more_noise_the_more_residual(kind: str) -> None:
    first = unit_rows(200, 6)
    clean, noise = first @ isometry(7, 6).mT, random(200, 7, seed=3) / 7**0.5
    traces = [float(fit_map(first, clean + much * noise, kind).residual.trace()) for much in (0, 0.1, 0.3, 1)]
    assert traces == sorted(traces) and traces[0] < 1e-9 < traces[1]


def test_what_cannot_be_is_refused() -> None:
    rows = unit_rows(20, 5)
    for arguments, said in (
        ((rows, rows, "procustes"), "Did you mean 'procrustes'"),
        ((rows, rows[:19]), "encode the same pictures"),
        ((rows[: 2 * FOLDS - 1], rows[: 2 * FOLDS - 1]), "at least 10"),
    ):
        with pytest.raises(UserError, match=said):
            fit_map(*arguments)
