from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayes_clip.errors import UserError
from bayes_clip.evaluation import simulation_based as module
from bayes_clip.evaluation.simulated import small_task
from bayes_clip.evaluation.simulation_based import LIKELIHOOD, Calibration, calibrate, rank_of
from bayes_clip.settings import FitSettings

TASK = small_task()
LAPLACE = FitSettings(engine="laplace", covariance="full")


@pytest.fixture(scope="module")
def sound() -> Calibration:
    return calibrate(TASK, LAPLACE, 0.3, 40)


def test_laplace_is_calibrated_where_the_posterior_is_nearly_gaussian(sound: Calibration) -> None:
    assert sound.verdict == "passes" and sound.p_value > 0.01
    assert sound.ranks.shape == (40, 9 + 2 * 2 + 1) and sound.ranks.min() >= 0 and sound.ranks.max() <= 199
    assert sound.width_needed == pytest.approx(1, abs=0.15)
    assert all(found.inside for found in sound.coverage)
    assert sound.pareto_k is not None and sound.pareto_k < 0.5 and sound.pareto_share == 0
    assert sound.names[0] == "class_weights[0,0]" and sound.names[-1] == LIKELIHOOD
    assert sound.names[9] == "probe 0: logit 1 − logit 0"


def test_a_covariance_without_correlations_is_caught_at_a_wide_prior() -> None:
    found = calibrate(TASK, replace(LAPLACE, covariance="diagonal"), 100.0, 20)
    assert found.verdict == "too narrow" and found.width_needed > 1.5
    assert not found.coverage[1].inside and not found.coverage[2].inside
    assert found.coverage[1].share < 0.6


@pytest.mark.parametrize(("factor", "wanted"), [(0.3, "too narrow"), (4.0, "too wide")])
def test_a_posterior_made_narrower_or_wider_on_its_way_is_caught(
    monkeypatch: pytest.MonkeyPatch, factor: float, wanted: str
) -> None:
    """The real draws, scaled about their mean: what a wrong covariance would give."""
    true_draws = module.posterior_draws

    def spoilt(*arguments: object) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        sites, flat = true_draws(*arguments)  # type: ignore[arg-type]
        return {
            name: value.mean(0) + factor**0.5 * (value - value.mean(0)) for name, value in sites.items()
        }, flat

    monkeypatch.setattr(module, "posterior_draws", spoilt)
    monkeypatch.setattr(module, "PARETO_FITS", 0)
    found = calibrate(TASK, LAPLACE, 0.3, 40)
    assert found.verdict == wanted and found.pareto_k is None
    assert found.width_needed == pytest.approx(factor**-0.5, rel=0.2)


def test_the_same_seed_gives_the_same_ranks(sound: Calibration) -> None:
    again = calibrate(TASK, LAPLACE, 0.3, 20)
    assert np.array_equal(again.ranks, sound.ranks[:20])
    other = calibrate(TASK, LAPLACE, 0.3, 20, seed=1)
    assert not np.array_equal(again.ranks, other.ranks)


def test_ranks_count_the_draws_below_and_break_ties_at_random() -> None:
    draws = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    assert rank_of(torch.tensor([3.0, 5.0]), draws, 0).tolist() == [2, 3]
    assert rank_of(torch.tensor([-1.0, 0.0]), draws, 0).tolist() == [0, 0]
    tied = {int(rank_of(torch.tensor([3.0, 1.0]), draws, seed)[1]) for seed in range(40)}
    assert tied == {0, 1, 2, 3}


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(UserError, match="engine map: a point estimate claims no doubt"):
        calibrate(TASK, FitSettings(engine="map"), 1.0, 20)
    with pytest.raises(UserError, match="--simulations 3: too few"):
        calibrate(TASK, LAPLACE, 1.0, 3)
