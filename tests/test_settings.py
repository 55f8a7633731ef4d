from __future__ import annotations

import pytest
import torch

from bayes_clip.errors import UserError
from bayes_clip.inference import ENGINE_COVARIANCES, ENGINES
from bayes_clip.settings import FitSettings

BAD = {
    "engine": ("ekff", "--engines ekff: .* Did you mean 'ekf'"),
    "covariance": ("clas_block", "--covariance clas_block: .* Did you mean 'class_block'"),
    "rule": ("expcted", "--rule expcted: .* Did you mean 'expected'"),
    "predictive": ("plugin", "predictive 'plugin': .* Did you mean 'plug_in'"),
    "order": ("blanced", "--order blanced: .* Did you mean 'balanced'"),
    "prior_variance": (0.0, "--prior-variance 0: must be a positive number, or auto"),
    "batch_size": (0, "--batch-size 0: must be at least 1"),
    "passes": (0, "--passes 0: must be at least 1"),
    "decay": (1.5, "--decay 1.5: must lie above 0"),
    "process_noise": (-1.0, "--process-noise -1: must be 0 or a positive"),
    "seed": (-1, "--seed -1: seeds are whole numbers from 0 on"),
    "dtype": ("float16", "--dtype float16: must be float32 or float64"),
}


@pytest.mark.parametrize("option", BAD)
def test_every_bad_value_is_refused_in_one_line_that_names_the_option(option: str) -> None:
    value, message = BAD[option]
    with pytest.raises(UserError, match=f"^{message}") as refusal:
        FitSettings(**{option: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_prior_variances_that_are_no_positive_numbers_are_refused(value: float) -> None:
    with pytest.raises(UserError, match="--prior-variance"):
        FitSettings(prior_variance=value)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_the_family_is_the_one_asked_for_where_the_engine_offers_it(engine: str) -> None:
    offered = ENGINE_COVARIANCES[engine]
    assert FitSettings(engine=engine).family == (offered[0] if offered else "")
    for name in ("full", "low_rank"):
        expected = name if name in offered else FitSettings(engine=engine).family
        assert FitSettings(engine=engine, covariance=name).family == expected


def test_defaults_are_those_of_the_manual() -> None:
    settings = FitSettings()
    assert (settings.engine, settings.family, settings.update_rule) == ("ekf", "class_block", "expected")
    assert settings.torch_dtype == torch.float32 and settings.state_space.is_static


def test_what_an_engine_cannot_follow_is_said() -> None:
    assert FitSettings(covariance="full", decay=0.9).unused == ()
    assert FitSettings(engine="map", covariance="full").unused == ()
    (remark,) = FitSettings(engine="vi", covariance="full").unused
    assert remark == "vi has no --covariance full: it takes diagonal"
    (remark,) = FitSettings(engine="laplace", decay=0.9).unused
    assert remark.startswith("laplace knows no --decay") and "static model" in remark


def test_a_large_allocation_is_announced_in_the_dtype_it_is_made_in() -> None:
    assert FitSettings(covariance="class_block").allocation(47, 512) == ()
    assert FitSettings(engine="map").allocation(10**6, 10**6) == ()
    for engine, numbers in (("ekf", 4), ("laplace", 8)):  # laplace inverts the whole precision in float64
        (note,) = FitSettings(engine=engine, covariance="full").allocation(47, 512)
        assert f"takes {numbers * (47 * 512) ** 2 / 2**30:.1f} GiB" in note


def test_small_batches_in_one_pass_are_advised_against_where_sweeps_are_possible() -> None:
    (advice,) = FitSettings(batch_size=1, order="given").remarks
    assert "--passes 2" in advice
    assert FitSettings(batch_size=1, passes=2).remarks == ()
    assert FitSettings(batch_size=1, covariance="diagonal").remarks == ()
    assert FitSettings(batch_size=1, decay=0.9).remarks == ()
    assert FitSettings().remarks == FitSettings(batch_size=32).remarks == ()
