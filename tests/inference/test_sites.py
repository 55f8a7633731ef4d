"""What is read from a Pyro model's trace, and what is refused, by site and reason."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_problems import assert_near
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.inference.sites import read_sites
from bayes_clip.observation import SOFTMAX, Bernoulli, Gaussian

LIKE = torch.zeros(1, 4, dtype=torch.float64)
ZERO = torch.zeros(3, 4, dtype=torch.float64)


def observed(inputs: Tensor, likelihood: dist.Distribution, labels: Tensor | None) -> Tensor:
    with pyro.plate("data", len(inputs)):
        return pyro.sample("labels", likelihood, obs=labels)


def weights(prior: dist.Distribution | None = None) -> Tensor:
    return pyro.sample("weights", prior or dist.Normal(ZERO, 1.0).to_event(2))


def softmax(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    bias = pyro.sample("bias", dist.Normal(torch.arange(3.0).double(), 0.5).to_event(1))
    return observed(inputs, dist.Categorical(logits=inputs @ weights().mT + bias), labels)


def switches(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    return observed(inputs, dist.Bernoulli(logits=inputs @ weights()[0]), labels)


def values(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    targets = None if labels is None else torch.eye(3).double()[labels]
    return observed(inputs, dist.Normal(inputs @ weights().mT, 0.5).to_event(1), targets)


def test_sites_priors_and_observation_are_read_from_the_trace() -> None:
    reading = read_sites(softmax, LIKE)
    assert [(site.name, tuple(site.shape)) for site in reading.sites] == [("bias", (3,)), ("weights", (3, 4))]
    assert_near(reading.prior_mean, torch.cat([torch.arange(3.0), torch.zeros(12)]).double())
    assert_near(reading.prior_variance, torch.cat([torch.full((3,), 0.25), torch.ones(12)]).double())
    assert reading.observation is SOFTMAX and reading.outputs == 3
    assert isinstance(read_sites(switches, LIKE).observation, Bernoulli)
    assert read_sites(switches, LIKE).outputs == 1
    gaussian = read_sites(values, LIKE)
    assert isinstance(gaussian.observation, Gaussian) and gaussian.outputs == 3
    assert_near(gaussian.observation.variance, torch.full((3,), 0.25, dtype=torch.float64))
    assert_near(gaussian.targets(gaussian.probe, torch.tensor([2, 0, 1])), torch.eye(3).double()[[2, 0, 1]])


def test_reading_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    read_sites(softmax, LIKE)
    assert torch.equal(torch.get_rng_state(), state)


def per_datum(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    with pyro.plate("data", len(inputs)):
        own = pyro.sample("own", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
        return pyro.sample("labels", dist.Categorical(logits=own), obs=labels)


def discrete(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    side = pyro.sample("side", dist.Bernoulli(0.5))
    return observed(inputs, dist.Categorical(logits=side * inputs @ weights().mT), labels)


def heavy_tailed(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    drawn = weights(dist.StudentT(3.0, ZERO, 1.0).to_event(2))
    return observed(inputs, dist.Categorical(logits=inputs @ drawn.mT), labels)


def hierarchical(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    centre = pyro.sample("centre", dist.Normal(torch.zeros(()).double(), 1.0))
    return observed(
        inputs,
        dist.Categorical(logits=inputs @ weights(dist.Normal(ZERO + centre, 1.0).to_event(2)).mT),
        labels,
    )


def counts(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    return observed(inputs, dist.Poisson((inputs @ weights()[0]).exp()), labels)


def uncertain_spread(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    drawn = weights()
    return observed(inputs, dist.Normal(inputs @ drawn[0], drawn[1, 0].exp()), labels)


def nothing_seen(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    return weights()


def nothing_to_learn(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    return observed(inputs, dist.Categorical(logits=inputs[:, :3]), labels)


def scaled(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    with pyro.poutine.scale(scale=2.0):
        return softmax(inputs, labels)


def changing(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    if weights()[0, 0] > 0.1:
        pyro.sample("sometimes", dist.Normal(0.0, 1.0))
    return observed(inputs, dist.Categorical(logits=inputs @ ZERO.mT), labels)


def broken(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    return observed(inputs, dist.Categorical(logits=inputs @ weights()), labels)


@pytest.mark.parametrize(
    "model, reason",
    [
        (per_datum, "latent site 'own' has a value for every datum"),
        (discrete, "latent site 'side' is discrete"),
        (heavy_tailed, "latent site 'weights' is a StudentT, not a Normal"),
        (hierarchical, "the prior of site 'weights' depends on other latent sites"),
        (counts, "site 'labels' observes a Poisson"),
        (uncertain_spread, "the spread of site 'labels' depends on the weights"),
        (nothing_seen, "observes 0 sites"),
        (nothing_to_learn, "has no latent site"),
        (scaled, "site 'bias' is scaled or masked"),
        (changing, "its sites change from run to run"),
        (broken, "does not run as model"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_filtered_is_refused_by_site_and_reason(model: Callable, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        read_sites(model, LIKE)
    message = str(refusal.value)
    assert message.startswith(f"{model.__name__}: ") and "\n" not in message
