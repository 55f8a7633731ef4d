"""A model program with time written out in Pyro: a site of weights and a site of labels for every step.

θ_0 is drawn from the program's own prior and θ_k from N(m₀ + γ (θ_{k−1} − m₀), q P₀): the dynamics of a
`StateSpace`. The program itself is run once a step, so nothing of it is written down a second time. What
comes out is an ordinary Pyro model: SVI and NUTS fit all steps jointly, which is exact (NUTS) where the
filter and the smoother approximate, and affordable where weights times steps are few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, Independent, MultivariateNormal, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.state_space import Dynamics, StateSpace

Program = Callable[..., Any]  # (inputs, labels=None) -> labels; an AdapterModel or any plain Pyro function


@dataclass(frozen=True)
class Unrolled:
    """A Pyro model of a labelled stream: ``unrolled(inputs, labels)``, one entry of each per step.

    Every site and plate of the program appears once a step under its name and the step's number:
    ``class_weights_0``, ``labels_0``, ``class_weights_1``, ... Sites without process noise are deterministic
    from the second step on.
    """

    program: Program
    state_space: StateSpace
    steps: int

    def __call__(self, inputs: Sequence[Tensor], labels: Sequence[Tensor] | None = None) -> list[Any]:
        """Run all steps: inputs (b_k, F) and labels (b_k,) of step k; without labels they are drawn.

        Raises:
            UserError: not one batch per step, a site that is not Gaussian, a site that the state space does
                not know, or one whose prior is not the same at every step.
        """
        if len(inputs) != self.steps or (labels is not None and len(labels) != self.steps):
            raise UserError(f"unrolled model: {self.steps} steps need as many batches of inputs and labels")
        known = labels is not None
        first = previous = _FirstStep(set() if known else _observed_sites(self.program, inputs[0]))
        drawn = []
        dynamics: dict[str, Dynamics] = {}
        for step in range(self.steps):
            handler = first if step == 0 else _LaterStep(step, first, previous, dynamics)
            with handler:
                drawn.append(self.program(inputs[step], None if labels is None else labels[step]))
            if step == 0:
                dynamics = self.state_space.by_site(first.weights)
            previous = handler
        return drawn


def unroll(program: Program, state_space: StateSpace, steps: int) -> Unrolled:
    """The model program (or plain Pyro function of inputs and labels) over `steps` batches.

    Raises:
        UserError: fewer than one step.
    """
    if steps < 1:
        raise UserError(f"unrolled model: {steps} steps; give at least one")
    return Unrolled(program, state_space, steps)


class _FirstStep(Messenger):
    """Numbers the sites of one run of the program, and keeps its weights and their priors."""

    step = 0

    def __init__(self, observed: set[str]) -> None:
        super().__init__()
        self.observed = observed  # sites that are no weights although their labels are not given
        self.weights: dict[str, Tensor] = {}
        self.priors: dict[str, Gaussian] = {}
        self._own: dict[str, str] = {}

    def _pyro_sample(self, message: Any) -> None:
        name = message["name"]
        message["name"] = f"{name}_{self.step}"
        if message["is_observed"] or name in self.observed or site_is_subsample(message):
            return
        self._own[message["name"]] = name
        self.priors[name] = _gaussian(name, message["fn"])
        self._move(name, message)

    def _pyro_post_sample(self, message: Any) -> None:
        if message["name"] in self._own:
            self.weights[self._own[message["name"]]] = message["value"]

    def _move(self, name: str, message: Any) -> None:
        """The first step is the prior as it is."""


class _LaterStep(_FirstStep):
    """The same for a later step, whose weights move on from those of the step before."""

    def __init__(
        self, step: int, first: _FirstStep, before: _FirstStep, dynamics: dict[str, Dynamics]
    ) -> None:
        super().__init__(first.observed)
        self.step, self.first, self.before, self.dynamics = step, first, before, dynamics

    def _move(self, name: str, message: Any) -> None:
        prior = self.first.priors.get(name)
        if prior is None or not prior.same_as(self.priors[name]):
            raise UserError(
                f"unrolled model: the prior of site '{name}' is not the same at every step; "
                "only sites that depend on no other site and on no input can be unrolled"
            )
        own = self.dynamics[name]
        mean = prior.mean + own.decay * (self.before.weights[name] - prior.mean)
        if own.noise != 0:
            message["fn"] = prior.around(mean, own.noise)
            return
        message["fn"] = Delta(mean, event_dim=prior.event_dim).mask(False)
        message["value"], message["is_observed"] = mean, True
        message["infer"] = {"_deterministic": True}


@dataclass(frozen=True)
class Gaussian:
    """The prior of a site: a Normal or MultivariateNormal with `event_dim` event dimensions in all."""

    base: Normal | MultivariateNormal
    event_dim: int

    @property
    def mean(self) -> Tensor:
        """In the shape of the weights."""
        return self.base.mean

    def around(self, mean: Tensor, noise: Any) -> TorchDistributionMixin:
        """The Gaussian with another mean and `noise` times the covariance."""
        if isinstance(self.base, Normal):
            return Normal(mean, self.base.scale * noise**0.5).to_event(self.event_dim)
        return MultivariateNormal(mean, scale_tril=self.base.scale_tril * noise**0.5).to_event(
            self.event_dim - 1
        )

    def same_as(self, other: Gaussian) -> bool:
        """Whether mean and covariance are equal."""
        if type(self.base) is not type(other.base) or self.mean.shape != other.mean.shape:
            return False
        spreads = [
            one.base.scale if isinstance(one.base, Normal) else one.base.scale_tril for one in (self, other)
        ]
        return torch.equal(self.mean, other.mean) and torch.equal(*spreads)


def _observed_sites(program: Program, inputs: Tensor) -> set[str]:
    """The sites that take the labels: those observed when the program is given labels it drew itself."""
    with poutine.block():
        drawn = program(inputs)
        if drawn is None:
            raise UserError("unrolled model: without labels the program must return those it drew")
        trace = poutine.trace(program).get_trace(inputs, drawn)
    return set(trace.observation_nodes)


def _gaussian(name: str, distribution: Any) -> Gaussian:
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal | MultivariateNormal):
        raise UserError(
            f"unrolled model: site '{name}' is {type(base).__name__}; only Gaussian sites have dynamics"
        )
    return Gaussian(base, distribution.event_dim)
