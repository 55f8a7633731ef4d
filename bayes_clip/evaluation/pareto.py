"""Pareto-k̂: could draws of this posterior be reweighted to the exact one? In low dimension only.

The weights p(θ, y) / q(θ) of draws from q have a tail whose generalised Pareto shape k̂ says how many of
their moments exist (Vehtari, Simpson, Gelman, Yao & Gabry 2024, "Pareto smoothed importance sampling"; as a
check of approximate posteriors, Yao, Vehtari, Simpson & Gelman 2018). In many dimensions even a posterior
that is good for every use has k̂ above 0.7, so there the number is refused rather than shown.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.simulated import densities, posterior_draws
from bayes_clip.gaussian.point import Draws, Point
from bayes_clip.posterior import Posterior

DRAWS = 1000
MOST_WEIGHTS = 64


def threshold(draws: int = DRAWS) -> float:
    """The k̂ up to which `draws` draws can be reweighted: min(1 − 1/log₁₀ S, 0.7); 0.67 for 1000."""
    return min(1 - 1 / float(np.log10(draws)), 0.7)


def pareto_k(log_weights: np.ndarray) -> float:
    """k̂ of log importance weights (S,), by ArviZ; −∞ where all weights are the same."""
    if np.ptp(log_weights) < 1e-9:
        return -float("inf")
    if int(version("arviz").split(".")[0]) == 0:
        import arviz  # here, because it takes seconds to import

        return float(arviz.psislw(log_weights)[1])
    stats: Any = import_module("arviz_stats.base").array_stats
    return float(stats.psislw(log_weights)[1])


@torch.no_grad()
def posterior_pareto_k(posterior: Posterior, task: Task, draws: int = DRAWS, seed: int = 0) -> float:
    """k̂ of the posterior fitted to the support set of `task` against its program's exact joint density.

    Raises:
        UserError: more than 64 weights, or a posterior without a density (a point, a Markov chain).
    """
    weights = posterior.weights
    if isinstance(weights, Point | Draws):
        what = "a point" if isinstance(weights, Point) else "a Markov chain"
        raise UserError(
            f"Pareto-k̂ of {posterior.source.settings.engine}: {what} has no density; use ekf, laplace or vi"
        )
    count = weights.mean.numel()
    if count > MOST_WEIGHTS:
        raise UserError(
            f"Pareto-k̂ of {count:,} weights: above {MOST_WEIGHTS} it says more about the dimension than "
            "about the posterior; check on a smaller task"
        )
    sites, flat = posterior_draws(posterior, draws, seed)
    inputs = task.support_features.to(flat)
    exact = densities(posterior.program, sites, inputs, task.support_labels.to(flat.device)).log_joint
    own = posterior.get_posterior().log_prob(flat.to(weights.mean))
    return pareto_k((exact - own.double()).cpu().numpy())
