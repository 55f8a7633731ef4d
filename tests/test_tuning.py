from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayes_clip.predictive import closed_form
from bayes_clip.tuning import (
    CENTRES,
    COVARIANCE_SCALES,
    HIGHEST,
    HYPER_WIDTH,
    LOWEST,
    MOST_LOOKS,
    STEP,
    choose,
    choose_scale,
    default_variance,
)

LABELS = torch.arange(600) % 3


def held_out_best_at(best: float, uncertainty: float = 0.0):
    """Logits of left-out rows that say most at the prior variance `best`: calibrated in strength there,
    too strong or too weak by |log(v / best)| elsewhere."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(600, 3, generator=generator, dtype=torch.float64)
    signal = 1.5 * torch.nn.functional.one_hot(LABELS, 3) + noise
    strength = torch.nn.functional.one_hot(LABELS, 3).double()

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        away = math.log(prior_variance / best)
        mean = signal - 0.3 * away**2 * strength
        return mean, torch.full_like(mean, uncertainty)

    return at


@settings(deadline=None, max_examples=25)
@given(steps=st.floats(-3.4, 4.4))
def test_the_half_decade_nearest_to_the_optimum_is_found(steps: float) -> None:
    """600 rows make the hyper-prior negligible. The walk looks up first, and so gets a step less far down."""
    centre, best = 0.01, 0.01 * STEP**steps
    tuned = choose(held_out_best_at(best), LABELS, centre, 1e4)
    assert abs(math.log(tuned.prior_variance / best)) < 0.51 * math.log(STEP)
    assert len(tuned.profile) <= min(MOST_LOOKS, 3 + abs(round(steps)))
    variances = [candidate.prior_variance for candidate in tuned.profile]
    assert variances == sorted(variances)
    assert min(candidate.objective for candidate in tuned.profile) == next(
        candidate.objective for candidate in tuned.profile if candidate.prior_variance == tuned.prior_variance
    )


def test_the_hyper_prior_decides_where_the_folds_say_nothing() -> None:
    def silent(prior_variance: float) -> tuple[Tensor, Tensor]:
        return torch.zeros(600, 3).double(), torch.zeros(600, 3).double()

    tuned = choose(silent, LABELS, 0.003, 1e4)
    assert tuned.prior_variance == pytest.approx(0.003)
    beside = max(tuned.profile, key=lambda candidate: candidate.prior_variance)
    wanted = (math.log(beside.prior_variance / 0.003) / HYPER_WIDTH) ** 2 / 2 / 600
    assert beside.objective - beside.fold_nll == pytest.approx(wanted)
    assert beside.fold_nll == pytest.approx(math.log(3))


def test_the_search_stays_within_its_limits() -> None:
    """An optimum far outside: the search stops within a step of the limit."""
    for best, centre, bound in ((1e6, 10.0, HIGHEST), (1e-9, 1e-4, LOWEST)):
        tuned = choose(held_out_best_at(best), LABELS, centre, 1e4)
        logit_variance = 1e4 * tuned.prior_variance
        assert LOWEST <= logit_variance <= HIGHEST
        assert abs(math.log(logit_variance / bound)) < 1.01 * math.log(STEP)


def test_the_search_ends_however_far_the_optimum() -> None:
    assert len(choose(held_out_best_at(1e3), LABELS, 1e-3, 1e4).profile) == MOST_LOOKS


def test_the_chosen_scale_is_never_worse_than_plug_in_on_the_folds() -> None:
    for uncertainty in (0.1, 3.0, 50.0, 1e4):
        held_out = held_out_best_at(0.01, uncertainty)
        tuned = choose_scale(held_out, LABELS, 0.01)
        mean, variance = held_out(0.01)
        by_scale = {
            scale: float(-closed_form(mean, scale * variance)[range(600), LABELS].log().mean())
            for scale in COVARIANCE_SCALES
        }
        assert tuned.profile[0].fold_nll == pytest.approx(min(by_scale.values()))
        assert by_scale[tuned.covariance_scale] == min(by_scale.values()) <= by_scale[0.0]


def test_overconfident_means_want_a_scale_above_zero_and_right_ones_do_not() -> None:
    def overconfident(prior_variance: float) -> tuple[Tensor, Tensor]:
        mean, _ = held_out_best_at(0.01)(0.01)
        return 8 * mean, torch.full_like(mean, 60.0)

    assert choose_scale(overconfident, LABELS, 0.01).covariance_scale > 0
    assert choose_scale(held_out_best_at(0.01, 60.0), LABELS, 0.01).covariance_scale < 0.1


def test_without_scales_the_folds_are_judged_by_plug_in() -> None:
    tuned = choose(held_out_best_at(0.01, 60.0), LABELS, 0.01, 1e4, scales=False)
    assert tuned.covariance_scale == 0
    assert all(candidate.covariance_scale == 0 for candidate in tuned.profile)


def test_the_default_variance_is_the_centre_over_the_logit_variance() -> None:
    for kind, centre in CENTRES.items():
        assert default_variance(kind, 1e4, True) == pytest.approx(centre / 1e4)
        assert default_variance(kind, 1e4, False) > default_variance(kind, 1e4, True)


def test_a_search_stays_below_the_widest_prior_that_a_program_bears() -> None:
    labels = torch.arange(8) % 2
    tried = []

    def held_out(variance: float) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append(variance)
        mean = variance * torch.nn.functional.one_hot(labels, 2).double()  # the wider, the better
        return mean, torch.zeros_like(mean)

    assert choose(held_out, labels, 1.0, 100.0, widest=1.0).prior_variance == 1.0
    assert max(tried) == 1.0
    assert choose(held_out, labels, 1.0, 100.0).prior_variance > 1.0
