"""Data drawn from a model program itself, and its exact densities: what an engine is checked against.

Everything is read from the Pyro program by tracing it: a program under check is written down once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from bayes_clip.data.task import Task, make_task
from bayes_clip.model import AdapterModel, context_of, find_model
from bayes_clip.posterior import Posterior
from bayes_clip.randomness import own_random_numbers

LOGIT_SCALE = 3.0  # zero-shot logits then differ by about 3, as those of CLIP do on real images

Sites = Mapping[str, Tensor]


@dataclass(frozen=True)
class Densities:
    """What a program says of S draws of its weights and N labelled rows; log densities in nats."""

    log_joint: Tensor  # (S,) log p(weights, labels)
    log_likelihood: Tensor  # (S, N)
    logits: Tensor  # (S, N, C) normalised: log-probabilities


def small_task(classes: int = 3, features: int = 3, rows: int = 30, probes: int = 2, seed: int = 0) -> Task:
    """Random unit rows, `probes` rows to predict, and random unit text features. Its labels mean nothing."""
    generator = torch.Generator().manual_seed(seed)

    def random(count: int) -> Tensor:
        return torch.randn(count, features, generator=generator)

    return make_task(
        "simulated",
        random(rows),
        torch.arange(rows) % classes,
        random(probes),
        torch.arange(probes) % classes,
        text_features=random(classes),
        logit_scale=LOGIT_SCALE,
    )


def program_of(task: Task, model: str, prior_variance: float) -> AdapterModel:
    """The model program of that name on the task, in float64."""
    context = context_of(task.text_features, task.class_names, task.logit_scale, task.num_features)
    return find_model(model)(replace(context, text_features=context.text_features.double()), prior_variance)


@torch.no_grad()
def simulate(model: AdapterModel, inputs: Tensor, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """Weights from the program's prior, by site, and labels (N,) of `inputs` (N, F) under them."""
    unlabelled = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
    with own_random_numbers(inputs.device, seed):
        observed = poutine.trace(model).get_trace(inputs, unlabelled).observation_nodes
    with own_random_numbers(inputs.device, seed):
        trace = prune_subsample_sites(poutine.trace(model).get_trace(inputs))
    values: dict[str, Any] = {name: trace.nodes[name]["value"] for name in trace.stochastic_nodes}
    labels = values.pop(observed[0])
    return values, labels


def densities(model: AdapterModel, weights: Sites, inputs: Tensor, labels: Tensor) -> Densities:
    """Exact densities of S draws of the weights (each site (S, ...)) and of N labelled rows."""

    def of_one(one: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        trace = poutine.trace(poutine.condition(model, data=one)).get_trace(inputs, labels)
        log_joint: Any = trace.log_prob_sum()
        observed: Any = next(trace.nodes[name] for name in trace.observation_nodes if name not in one)
        return log_joint, observed["fn"].log_prob(labels), observed["fn"].logits

    with torch.no_grad(), pyro.validation_enabled(False):
        return Densities(*torch.vmap(of_one)(dict(weights)))


@torch.no_grad()
def posterior_draws(posterior: Posterior, count: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """`count` draws of the weights, by site and flat (S, P), in float64.

    Those of a Markov chain are evenly spaced along it: at most as many as it holds.
    """
    distribution = posterior.get_posterior()
    with own_random_numbers(posterior.weights.mean.device, seed):
        if hasattr(posterior.weights, "samples"):
            chain = posterior.weights.samples.flatten(1)
            flat = chain[torch.linspace(0, len(chain) - 1, count).round().long()]
        else:
            flat = distribution.sample((count,))
    sites = {site["name"]: value.double() for site, value in posterior._unpack_latent(flat)}
    return sites, flat.double()


def seed_of(*numbers: int) -> int:
    """A seed for the random numbers of one purpose, from whole numbers of at least 0 that name it."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
