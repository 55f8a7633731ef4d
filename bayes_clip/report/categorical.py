"""Checks of labels that have no order, on exported data; ArviZ 1.x has its own, 0.23 has not.

`plot_loo_pit` of 0.23 smooths discrete data across rows, which makes the PIT of confident and calibrated
predictions far from uniform; `randomised_labels` breaks the ties at random instead, as 1.x does. 1.x draws
reliability by pooling adjacent violators with ``plot_ppc_pava(data, data_type="categorical")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression


@dataclass(frozen=True)
class Reliability:
    """How often a class was right at each forecast of it, the N rows in order of their forecast."""

    forecast: np.ndarray  # (N,) predicted probability, ascending
    frequency: np.ndarray  # (N,) isotonic: the calibrated probability; equal to the forecast if calibrated

    @property
    def miscalibration(self) -> float:
        """Mean squared distance of forecast and frequency: the MCB part of the Brier score."""
        return float(np.mean((self.forecast - self.frequency) ** 2))


def randomised_labels(data: Any, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and predicted labels (N, draws), each with a uniform number on [0, 1) added.

    ``az.plot_loo_pit(data, y=y, y_hat=y_hat)`` of these is the randomised PIT: uniform for calibrated
    predictions, in whatever order the classes are numbered (Czado, Gneiting & Held 2009).
    `data`: what `to_arviz` returned, or the same read back.
    """
    generator = np.random.default_rng(seed)
    labels, predicted = _observed(data)
    return labels + generator.random(labels.shape), (predicted + generator.random(predicted.shape)).T


def pav_reliability(data: Any) -> dict[int, Reliability]:
    """Class -> its reliability against the rest, by isotonic regression.

    The CORP diagram of Dimitriadis, Gneiting & Jordan (2021), without bins. Forecasts are frequencies of the
    predicted labels: with S draws their error is up to 1 / (2 √S). Classes that are neither observed nor
    predicted are left out.
    """
    labels, predicted = _observed(data)
    found = {}
    for index in np.union1d(labels, predicted):
        forecast = (predicted == index).mean(0)
        order = np.argsort(forecast, kind="stable")
        happened = (labels == index)[order].astype(float)
        frequency = IsotonicRegression(y_min=0, y_max=1).fit_transform(forecast[order], happened)
        found[int(index)] = Reliability(forecast[order], frequency)
    return found


def _observed(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and predicted labels (draws, N) of the one observed variable."""
    (name,) = data["observed_data"].data_vars
    predicted = data["posterior_predictive"][name].values
    return data["observed_data"][name].values, predicted.reshape(-1, *predicted.shape[2:])
