"""Scores of resamples against the scores of the rows written out again and again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import made_run

from bayes_clip.evaluation import bootstrap
from bayes_clip.evaluation.bootstrap import CALIBRATION, PLUG_IN, Scored, blocks, random_signs, resamples
from bayes_clip.evaluation.metrics import bin_index, confidence_and_correct
from bayes_clip.evaluation.results import SCORE_COLUMNS, score

CLOSE = 1e-9
GRID_ERROR = 1e-3  # relative: the integral of the smooth error is a sum over another grid


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 70), st.booleans())
def test_resampled_scores_are_those_of_the_rows_repeated(seed: int, rows: int, rounded: bool) -> None:
    run = made_run(rows, seed, ood_rows=9, rounded=rounded)
    counts, beyond = resamples(rows, 3, (seed,)), resamples(9, 3, (seed, 1))
    found = Scored(run).on(counts.astype(float), beyond.astype(float))
    assert set(found) == {*SCORE_COLUMNS, PLUG_IN}
    for index in range(3):
        picked, outside = (np.repeat(np.arange(len(c)), c[:, index]) for c in (counts, beyond))
        assert run.ood_novelty is not None
        parts = (run.probabilities[picked], run.labels[picked], run.novelty[picked], run.ood_novelty[outside])
        for name, wanted in score(*parts).items():
            tolerance = GRID_ERROR * float(wanted) + 1e-4 if name == "smooth_ece" else CLOSE
            assert found[name][index] == pytest.approx(float(wanted), abs=tolerance), name


def test_noise_is_the_norm_of_residuals_with_those_signs() -> None:
    run = made_run(80, seed=5)
    signs = random_signs(80, 4, (0,)).astype(float)
    found = Scored(run).noise(signs)
    assert set(found) == {*CALIBRATION, PLUG_IN} - {"debiased_ece"}
    sure, right = confidence_and_correct(run.probabilities, run.labels)
    for index in range(4):
        moved = signs[:, index] * (sure - right)
        by_bin = np.bincount(bin_index(sure), weights=moved, minlength=15)
        assert found["ece"][index] == pytest.approx(np.abs(by_bin).sum() / 80, abs=CLOSE)
        of_classes = [
            np.abs(
                np.bincount(
                    bin_index(run.probabilities[:, k]),
                    weights=signs[:, index] * (run.probabilities[:, k] - (run.labels == k)),
                )
            ).sum()
            for k in range(5)
        ]
        assert found["classwise_ece"][index] == pytest.approx(np.mean(of_classes) / 80, abs=CLOSE)
        by_mass = [moved[rows].sum() for rows in np.array_split(np.argsort(sure), 15)]
        assert found["adaptive_ece"][index] == pytest.approx(np.abs(by_mass).sum() / 80, abs=CLOSE)


def test_resamples_have_as_many_rows_and_are_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = resamples(50, 7, (0,))
    assert (counts.sum(0) == 50).all() and (counts == resamples(50, 7, (0,))).all()
    assert (counts != resamples(50, 7, (1,))).any()
    monkeypatch.setattr(bootstrap, "NUMBERS", 100)
    parts = [block for _, block in blocks(counts)]
    assert [part.shape[1] for part in parts] == [2, 2, 2, 1] and (np.hstack(parts) == counts).all()
