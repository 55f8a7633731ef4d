"""The smooth calibration error: without bins, and without a choice of their number.

Błasiok & Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing" (ICLR 2024, arXiv
2309.12236). With residuals r_i = c_i − y_i of confidences c_i in [0, 1] and the Gaussian kernel of standard
deviation σ, reflected at 0 and 1 so that it loses nothing there,

    smECE_σ = ∫₀¹ |(1/M) Σ_i r_i K_σ(t, c_i)| dt,    smECE = smECE_σ at the one σ with smECE_σ = σ.

smECE_σ does not grow with σ, so there is one such σ. The reflected kernel is the heat kernel of [0, 1]: in
cosines cos(πkt) smoothing multiplies the k-th coefficient by exp(−π² k² σ²/2). A residual function is thus a
few coefficients, whatever M, and many resamples are one matrix product (`bootstrap`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import dct

from bayes_clip.evaluation.metrics import Array, confidence_and_correct

FADED = 2.0  # coefficients beyond FADED / σ have a weight below 3e-9 and are left out
FEWEST_MODES, MOST_MODES = 64, 4096
SHARPEST = FADED / MOST_MODES  # bandwidth below which nothing is resolved: 5e-4
GRID = 2  # points of the integral for each coefficient
NUMBERS = 2**22  # of cosines that are made at once
STEPS, TOLERANCE = 60, 1e-12


def smooth_ece(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Smooth calibration error of the winning class; in [0, 1].

    Exact but for the integral, a sum over a grid twice as fine as the finest wave (its error is below 1e-4
    of the value). An error below 5e-4 is found at the bandwidth 5e-4, which makes it smaller.
    """
    confidence, correct = confidence_and_correct(probabilities, labels)
    modes = FEWEST_MODES
    while True:
        found = float(smooth_errors(coefficients(confidence, confidence - correct, modes)[:, None])[0])
        if modes_for(found) <= modes:
            return found
        modes = min(2 * modes_for(found), MOST_MODES) if modes == FEWEST_MODES else MOST_MODES


def modes_for(bandwidth: float) -> int:
    """Coefficients that smoothing with `bandwidth` leaves."""
    return int(np.clip(np.ceil(FADED / max(bandwidth, SHARPEST)), FEWEST_MODES, MOST_MODES))


def cosines(places: Array, modes: int) -> Array:
    """cos(πkt) of the places (M,), (modes, M): by cos((k+1)x) = 2 cos(x) cos(kx) − cos((k−1)x)."""
    waves = np.empty((modes, len(places)))
    waves[0], waves[1] = 1.0, np.cos(np.pi * places)
    twice = 2 * waves[1]
    for k in range(2, modes):
        np.multiply(twice, waves[k - 1], out=waves[k])
        waves[k] -= waves[k - 2]
    return waves


def coefficients(confidence: Array, residual: Array, modes: int) -> Array:
    """Mean over the rows of residual (M,) x cos(πk confidence), (modes,)."""
    total, at_once = np.zeros(modes), max(1, NUMBERS // modes)
    for start in range(0, len(confidence), at_once):
        part = slice(start, start + at_once)
        total += cosines(confidence[part], modes) @ residual[part]
    return total / len(confidence)


def smoothed(coefficient: Array, bandwidth: Array) -> Array:
    """smECE_σ (B,) of residual functions given by coefficients (modes, B), each at its bandwidth (B,)."""
    modes, count = coefficient.shape
    waves = np.pi * np.arange(modes)[:, None]
    waved = np.zeros((GRID * modes, count))
    waved[:modes] = coefficient * np.exp(-((waves * bandwidth) ** 2) / 2)
    # scipy's transform of type 3 is x_0 + 2 Σ x_k cos(πk (j + ½)/n): the function at the middles of n cells
    return np.asarray(np.abs(dct(waved, type=3, axis=0, overwrite_x=True)).mean(0))


def smooth_errors(coefficient: Array) -> Array:
    """The fixed points smECE_σ = σ (B,) of residual functions given by coefficients (modes, B).

    False position in its Illinois form on σ − smECE_σ, which grows with σ; from the sharpest bandwidth that
    so many modes carry to 1. Where the error is smaller than that bandwidth, its value there.
    """
    count = coefficient.shape[1]
    low, high = np.full(count, FADED / len(coefficient)), np.ones(count)
    first = smoothed(coefficient, low)
    below, above = low - first, high - smoothed(coefficient, high)
    tiny = below >= 0
    side, middle = np.zeros(count), low
    for _ in range(STEPS):
        middle = np.where(tiny, low, (low * above - high * below) / np.where(tiny, 1.0, above - below))
        value = middle - smoothed(coefficient, middle)
        if np.all(tiny | (np.abs(value) < TOLERANCE)):
            break
        right = value >= 0
        below = np.where(right & (side > 0), below / 2, below)
        above = np.where(~right & (side < 0), above / 2, above)
        high, above = np.where(right, middle, high), np.where(right, value, above)
        low, below = np.where(right, low, middle), np.where(right, below, value)
        side = np.where(right, 1.0, -1.0)
    return np.where(tiny, first, middle)
