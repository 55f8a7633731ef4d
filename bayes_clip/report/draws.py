"""Draws of a posterior with what the program says of each: labels, log-likelihood and log densities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.gaussian.point import Draws
from bayes_clip.memory import WORKING_BYTES, rows_within
from bayes_clip.posterior import Posterior
from bayes_clip.randomness import own_random_numbers
from bayes_clip.versions import installed_versions


@dataclass(frozen=True)
class Drawn:
    """S draws of the weights, each with what it says of N labelled rows; arrays on the CPU."""

    observed: str  # name of the program's observed site
    values: np.ndarray  # (N,) the labels, as the program observes them
    weights: dict[str, np.ndarray]  # site -> (S, ...)
    predictive: np.ndarray  # (S, N) labels drawn
    log_likelihood: np.ndarray  # (S, N) nats, of the labels given
    densities: dict[str, np.ndarray]  # lp and, for Gaussians, lq: (S,) nats


@torch.no_grad()
def draw(posterior: Posterior, features: Tensor | Rows, labels: Tensor, draws: int, seed: int) -> Drawn:
    """Draw weights from the posterior and run the program with each of them on features (N, D), or rows.

    Raises:
        UserError: fewer than one draw, labels that do not fit the features, or features that do not fit the
            posterior.
    """
    if draws < 1:
        raise UserError(f"draws={draws}: must be at least 1")
    if labels.shape != (len(features),):
        raise UserError(
            f"labels of shape {tuple(labels.shape)} for {len(features)} rows of features; give one each"
        )
    rows = posterior.as_inputs(features)
    labels = labels.to(rows.device)
    with own_random_numbers(rows.device, seed), pyro.validation_enabled(False):  # which vmap cannot do
        flat, log_density = _flat_weights(posterior, draws)
        site = _observed_site(posterior, flat[0], rows, labels)
        # matrix products under vmap may copy the rows for every draw
        numbers = len(rows) * (rows.shape[1] + len(posterior.class_names))
        at_once = rows_within(WORKING_BYTES, numbers * rows.element_size())
        run = partial(_run, posterior, rows, labels, site["name"])
        every = torch.vmap(run, randomness="different", chunk_size=at_once)
        predicted, log_likelihood, log_prior = every(flat)
    densities = {"lp": _array(log_prior.double() + log_likelihood.double().sum(-1))}
    if log_density is not None:
        densities["lq"] = _array(log_density.double())
    return Drawn(
        observed=site["name"],
        values=_array(site["value"]),
        weights={
            name: _array(value) for name, value in torch.vmap(partial(_by_site, posterior))(flat).items()
        },
        predictive=_array(predicted),
        log_likelihood=_array(log_likelihood),
        densities=densities,
    )


def attributes(posterior: Posterior, seed: int) -> dict[str, str | int | float]:
    """What a reader of the file should know of the fit; what is unknown is left out (netCDF has no None)."""
    source = posterior.source
    settings = source.settings
    known: dict[str, str | int | float | None] = {
        "inference_library": "bayes_clip",
        "model": settings.model,
        "engine": settings.engine,
        "covariance": settings.family or None,
        "rule": settings.update_rule if settings.engine == "ekf" else None,
        "prior_variance": source.prior_variance,
        "covariance_scale": source.covariance_scale,
        "predictive": posterior.predictive,
        "weights": type(posterior.weights).__name__,
        "task": source.task,
        "shots": source.shots,
        "support_seed": source.seed,
        "support_rows": source.support_rows,
        "backbone": source.backbone,
        "fit_seed": settings.seed,
        "draws_seed": seed,
    }
    known |= {f"version_{name}": value for name, value in installed_versions().items()}
    return {name: value for name, value in known.items() if value is not None}


def _flat_weights(posterior: Posterior, draws: int) -> tuple[Tensor, Tensor | None]:
    """Flat weights (S, P) and their log density (S,), None where there is none: a point, or a chain."""
    if isinstance(posterior.weights, Draws):
        samples = posterior.weights.samples.flatten(1)
        picked = torch.linspace(0, len(samples) - 1, min(draws, len(samples))).round().long()
        return samples[picked.to(samples.device)], None
    distribution = posterior.get_posterior()
    # one by one: torch copies a covariance's root for every draw that is asked for at once
    flat = torch.stack([distribution.sample() for _ in range(draws)])
    return flat, None if posterior.is_point else distribution.log_prob(flat)


def _run(
    posterior: Posterior, rows: Tensor, labels: Tensor, observed: str, flat: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The program with the weights (P,) fixed: new labels (N,), log p of those given (N,), log prior."""
    weights, sites = _traced(posterior, flat, rows, labels)
    site = sites[observed]
    prior = [sites[name]["fn"].log_prob(value).sum() for name, value in weights.items()]
    return site["fn"].sample(), site["fn"].log_prob(site["value"]), torch.stack(prior).sum()


def _observed_site(posterior: Posterior, flat: Tensor, rows: Tensor, labels: Tensor) -> dict[str, Any]:
    """The program's one observed site, with the labels as it sees them."""
    weights, sites = _traced(posterior, flat, rows, labels)
    return next(
        site
        for name, site in sites.items()
        if site["type"] == "sample" and site["is_observed"] and name not in weights
    )


def _traced(
    posterior: Posterior, flat: Tensor, rows: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights by site, and the sites of the program run with them."""
    weights = _by_site(posterior, flat)
    trace = poutine.trace(poutine.condition(posterior.program, data=weights)).get_trace(rows, labels)
    return weights, dict(trace.nodes)


def _by_site(posterior: Posterior, flat: Tensor) -> dict[str, Tensor]:
    """Flat weights (P,) as the program's sites."""
    return {site["name"]: value for site, value in posterior._unpack_latent(flat)}


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
