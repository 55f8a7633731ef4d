from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pyro.distributions import Normal

import bayes_clip as bc
from bayes_clip import forecast as forecasting
from bayes_clip.errors import UserError
from bayes_clip.forecast import Forecast, forecast, search_factor
from bayes_clip.gaussian.cost import batch_work
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.engines import filtered
from bayes_clip.model import AdapterModel
from bayes_clip.rates import Rates
from bayes_clip.settings import FitSettings

SLOW = Rates(gemm_flops_per_second=1e6, copy_bytes_per_second=1e6)  # so that what is counted outweighs


def task_of(classes: int, features: int, shots: int) -> bc.Task:
    generator = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(classes, features, generator=generator), dim=-1)
    labels = torch.arange(classes).repeat(shots)
    rows = text[labels] + 0.05 * torch.randn(len(labels), features, generator=generator)
    return bc.make_task("small", rows, labels, rows[:1], labels[:1], text_features=text, logit_scale=20.0)


class Bent(AdapterModel):
    """A head whose logits are not linear in its weights."""

    def prior(self) -> dict[str, Any]:
        return {"weights": Normal(self.text_features, 1.0).to_event(2)}

    def logits(self, weights: Any, inputs: torch.Tensor) -> torch.Tensor:
        return (inputs @ weights["weights"].mT).tanh()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "eigen_rate", lambda device, size: 1e9)
    monkeypatch.setattr(forecasting, "measure", lambda device, dtype: SLOW)


def by_name(rows: tuple[Forecast, ...]) -> dict[str, Forecast]:
    return {row.covariance: row for row in rows}


def test_every_covariance_of_the_filter_has_a_row_and_one_is_chosen() -> None:
    rows = forecast(task_of(3, 16, 4), FitSettings(covariance="diagonal"))
    assert tuple(row.covariance for row in rows) == ENGINE_COVARIANCES["ekf"]
    assert [row.covariance for row in rows if row.chosen] == ["diagonal"]
    assert all(row.weights == 48 and 0 < row.seconds < 60 and row.fits for row in rows)
    assert by_name(rows)["full"].posterior_bytes == 4 * 48**2
    assert by_name(rows)["class_block"].peak_bytes == 2 * 4 * 3 * 16**2


def test_what_does_not_fit_is_said_and_forecast_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "free_memory", lambda device: 20_000)
    rows = by_name(forecast(task_of(3, 16, 4)))
    assert not rows["full"].fits and rows["class_block"].fits and rows["full"].seconds > 0


def test_seconds_grow_with_labels_and_features_as_the_counts_do() -> None:
    def seconds(features: int, shots: int) -> dict[str, float]:
        settings = FitSettings(prior_variance=0.01, predictive="plug_in")
        rows = forecast(task_of(4, features, shots), settings)
        return {row.covariance: row.seconds for row in rows}

    small, more, wide = seconds(48, 8), seconds(48, 16), seconds(96, 8)
    for family in ("class_block", "full"):
        assert more[family] == pytest.approx(2 * small[family], rel=0.3)
        assert wide[family] == pytest.approx(4 * small[family], rel=0.6)
    assert small["diagonal"] < small["class_block"] < small["full"]


def test_the_first_batch_is_turned_into_its_span_and_stays_itself() -> None:
    task, rows = task_of(4, 48, 4), torch.tensor([0, 5, 2, 11, 7])
    settings = FitSettings(prior_variance=0.02, dtype="float64", order="given")
    turned = forecasting._in_its_span(task, settings, rows)
    assert turned.inputs.shape == (5, 5)
    whole = bc.FitSettings(prior_variance=0.02, dtype="float64")
    assert turned.program.prior_mean.shape == (4, 5)
    exact = task.support_features[rows].double()
    assert task.text_features is not None
    expected = 20.0 * exact @ task.text_features.double().mT
    logits = turned.program.design(turned.inputs) @ turned.program.prior_mean.mT
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    design = turned.program.design(turned.inputs)
    torch.testing.assert_close(design @ design.mT, 400 * exact @ exact.mT, rtol=1e-9, atol=1e-9)
    _, _, (info,) = filtered(turned, replace(whole, batch_size=5))
    assert info.rows == 5


def test_laplace_has_rows_of_its_own() -> None:
    rows = by_name(forecast(task_of(3, 16, 4), FitSettings(engine="laplace", prior_variance=0.1)))
    assert tuple(rows) == ENGINE_COVARIANCES["laplace"]
    assert rows["full"].peak_bytes == 3 * 8 * 48**2 and rows["full"].posterior_bytes == 4 * 48**2
    assert rows["diagonal"].seconds < rows["class_block"].seconds < rows["full"].seconds


def test_what_the_settings_rule_out_is_left_out_unless_it_was_asked_for() -> None:
    task = task_of(3, 16, 4)
    rows = by_name(forecast(task, FitSettings(passes=2)))
    assert set(rows) == {"class_block", "full"}
    once = by_name(forecast(task, FitSettings(prior_variance=0.1)))
    twice = by_name(forecast(task, FitSettings(passes=2, prior_variance=0.1)))
    assert 2 < twice["full"].seconds / once["full"].seconds < 4
    with pytest.raises(UserError, match="--passes above 1 with --covariance diagonal"):
        forecast(task, FitSettings(passes=2, covariance="diagonal"))


def test_the_search_enters_as_a_factor() -> None:
    task = task_of(3, 16, 4)
    assert search_factor(task, FitSettings()) > search_factor(task, FitSettings(prior_variance=0.1)) > 1
    assert search_factor(task, FitSettings(covariance="kronecker")) > search_factor(task, FitSettings())
    assert search_factor(task, FitSettings(prior_variance=0.1, predictive="plug_in")) == 1
    assert search_factor(task_of(3, 16, 1), FitSettings()) == 1


def test_counts_of_a_batch_are_those_of_its_products() -> None:
    assert batch_work("class_block", 10, 64, 8, 4) == (
        4 * 10 * 64**2 * 8 + 4 * 10 * 64 * 64,
        8 * 10 * 64**2,
        0,
    )
    flops, moved, _ = batch_work("full", 10, 64, 8, 4)
    assert flops >= 2 * (640**2 * 80) and moved == 5 * 4 * 640**2
    assert batch_work("kronecker", 10, 64, 8, 4)[2] == 9 * (10**3 + 64**3)


def test_other_engines_and_other_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--dry-run: forecasts ekf and laplace, and vi"):
        forecast(task_of(3, 16, 4), FitSettings(engine="vi"))
    monkeypatch.setattr(forecasting, "find_model", lambda name: Bent)
    with pytest.raises(UserError, match="--dry-run"):
        forecast(task_of(3, 16, 4))
