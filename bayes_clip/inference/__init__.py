"""The engines: ways from labelled batches to a posterior, on one model program."""

from __future__ import annotations

ENGINES: dict[str, str] = {
    "zero_shot": "the prior mean: CLIP as it comes, no labels used",
    "sgd": "trained as published: the authors' recipe of gradient steps to its last, no prior",
    "map": "the posterior mode: a point estimate, no covariance",
    "ekf": "extended Kalman filter over class-balanced batches: one pass, takes labels as they come",
    "laplace": "Gaussian at the mode with the Gauss-Newton covariance",
    "vi": "Pyro SVI: mean-field (diagonal) or low-rank Gaussian by gradient steps on the ELBO",
    "nuts": "Pyro NUTS: draws from the exact posterior; small problems only",
}
NO_PRIOR = ("zero_shot", "sgd")  # engines that the width of the prior says nothing to
DEFAULT_ENGINES = ("zero_shot", "map", "ekf", "laplace", "vi")
ENGINE_COVARIANCES: dict[str, tuple[str, ...]] = {  # the default first
    "zero_shot": (),
    "sgd": (),
    "map": (),
    "ekf": ("class_block", "diagonal", "diagonal_variational", "full", "kronecker", "low_rank"),
    "laplace": ("class_block", "diagonal", "full", "kronecker"),
    "vi": ("diagonal", "low_rank"),
    "nuts": (),
}
COVARIANCES: dict[str, str] = {
    "class_block": "one covariance per class, C D² numbers (default)",
    "full": "all weights jointly, C² D² numbers; small problems",
    "kronecker": "prior plus classes x features, C² + D² numbers",
    "low_rank": "diagonal plus low rank: in precision for ekf, in covariance for vi",
    "diagonal": "a variance per weight: marginal for ekf, of the precision for laplace",
    "diagonal_variational": "a variance per weight, from the diagonal of the precision",
}
UPDATE_RULES: dict[str, str] = {
    "expected": "curvature averaged over the batch's posterior, to a fixed point (default)",
    "iterated": "at the batch's mode, the prior fixed: one batch is Laplace",
    "moment_matched": "one step by the moments of the prediction; narrow priors",
    "plain": "one linearisation at the prediction: the textbook filter",
    "kalman_clip": "the published recipe: paired cosines, adaptive noise; --covariance diagonal",
    "natural_gradient": "one step in the precision's diagonal; --covariance diagonal_variational",
}
HEAD_ONLY = ("class_block", "kronecker")  # covariances that need a linear head
FLAT_DEFAULTS = ("full", "diagonal")  # what other programs take instead, small and large

__all__ = [
    "COVARIANCES",
    "DEFAULT_ENGINES",
    "ENGINES",
    "ENGINE_COVARIANCES",
    "FLAT_DEFAULTS",
    "HEAD_ONLY",
    "NO_PRIOR",
    "UPDATE_RULES",
]
