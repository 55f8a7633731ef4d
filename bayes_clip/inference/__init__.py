"""The engines: ways from labelled batches to a posterior, on one model program."""

from __future__ import annotations

ENGINES: dict[str, str] = {
    "zero_shot": "the prior mean: CLIP as it comes, no labels used",
    "map": "the posterior mode: a point estimate, no covariance",
    "ekf": "extended Kalman filter over class-balanced batches: one pass, takes labels as they come",
    "laplace": "Gaussian at the mode with the Gauss-Newton covariance",
    "vi": "Pyro SVI: mean-field (diagonal) or low-rank Gaussian by gradient steps on the ELBO",
    "nuts": "Pyro NUTS: draws from the exact posterior; small problems only",
}
DEFAULT_ENGINES = ("zero_shot", "map", "ekf", "laplace", "vi")
ENGINE_COVARIANCES: dict[str, tuple[str, ...]] = {  # the default first
    "zero_shot": (),
    "map": (),
    "ekf": ("class_block", "diagonal", "diagonal_variational", "full", "kronecker", "low_rank"),
    "laplace": ("class_block", "diagonal", "full", "kronecker"),
    "vi": ("diagonal", "low_rank"),
    "nuts": (),
}
HEAD_ONLY = ("class_block", "kronecker")  # covariances that need a linear head
FLAT_DEFAULTS = ("full", "diagonal")  # what other programs take instead, small and large

__all__ = ["DEFAULT_ENGINES", "ENGINES", "ENGINE_COVARIANCES", "FLAT_DEFAULTS", "HEAD_ONLY"]
