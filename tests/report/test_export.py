"""The ArviZ shim: groups, shapes, attributes, and the way through a netCDF file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import arviz
import numpy as np
import pytest
import torch

from bayes_clip.report.export import to_arviz

DRAWS, ROWS = 50, 7


@pytest.fixture
def parts() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "posterior_samples": {
            "class_weights": torch.randn(DRAWS, 3, 4),
            "scale": generator.normal(size=DRAWS),
        },
        "log_likelihood": -generator.gamma(1.0, 1.0, (DRAWS, ROWS)),
        "posterior_predictive": generator.integers(0, 3, (DRAWS, ROWS)),
        "observed": generator.integers(0, 3, ROWS),
        "sample_stats": {"log_q": generator.normal(size=DRAWS)},
        "attrs": {"engine": "ekf", "prior_variance": 0.01},
    }


def test_every_group_holds_what_was_given(parts: dict[str, Any]) -> None:
    data = to_arviz(**parts)
    assert data["posterior"]["class_weights"].shape == (1, DRAWS, 3, 4)
    np.testing.assert_array_equal(
        data["posterior"]["class_weights"].values[0], parts["posterior_samples"]["class_weights"].numpy()
    )
    np.testing.assert_array_equal(data["log_likelihood"]["labels"].values[0], parts["log_likelihood"])
    np.testing.assert_array_equal(
        data["posterior_predictive"]["labels"].values[0], parts["posterior_predictive"]
    )
    np.testing.assert_array_equal(data["observed_data"]["labels"].values, parts["observed"])
    np.testing.assert_array_equal(data["sample_stats"]["log_q"].values[0], parts["sample_stats"]["log_q"])
    assert data["posterior"].attrs["engine"] == "ekf"


def test_netcdf_gives_back_the_same(parts: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "posterior.nc"
    to_arviz(**parts).to_netcdf(str(path))
    back = arviz.from_netcdf(str(path))
    np.testing.assert_array_equal(
        back["posterior"]["class_weights"].values[0], parts["posterior_samples"]["class_weights"].numpy()
    )
    np.testing.assert_array_equal(back["observed_data"]["labels"].values, parts["observed"])
    assert back["posterior"].attrs["prior_variance"] == 0.01


def test_leave_one_out_runs_on_it(parts: dict[str, Any]) -> None:
    with np.errstate(all="ignore"):
        found = arviz.loo(to_arviz(**parts), pointwise=True)
    assert np.isfinite(float(getattr(found, "elpd_loo", getattr(found, "elpd", np.nan))))


def test_groups_that_were_not_given_are_absent(parts: dict[str, Any]) -> None:
    data = to_arviz(parts["posterior_samples"])
    groups = {str(group).strip("/") for group in (data.groups() if callable(data.groups) else data.groups)}
    assert groups - {""} == {"posterior"}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("log_likelihood", np.zeros((DRAWS - 1, ROWS)), "draws"),
        ("sample_stats", {"log_q": 0.5}, "draws"),
        ("observed", np.zeros(ROWS + 1, dtype=int), "labels"),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts: dict, name: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        to_arviz(**{**parts, name: value})
