"""The dynamics of the weights between batches: decay towards the prior mean and process noise, per site."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.errors import UserError, nearest


@dataclass(frozen=True)
class Dynamics:
    """A state space resolved for the weights of one program: what one time step does to them.

    A number where all weights share it, else a tensor in the shape of the flat weights (P,).
    """

    decay: float | Tensor
    noise: float | Tensor  # process noise as a multiple of the prior variance

    @property
    def is_static(self) -> bool:
        """Whether nothing changes between batches."""
        return _all(self.decay, 1.0) and _all(self.noise, 0.0)

    def over(self, elapsed: float) -> Dynamics:
        """The dynamics of `elapsed` time steps (not necessarily whole) in closed form.

        γ^Δ, and q (1 − γ^2Δ) / (1 − γ²), which is q Δ at γ = 1: whole steps are the same steps taken one by
        one, and the noise 1 − γ² becomes 1 − γ^2Δ, so that a stationary prior stays so.

        Raises:
            UserError: time that runs backwards.
        """
        if not 0 <= elapsed < math.inf:
            raise UserError(f"elapsed time {elapsed:g}: must be 0 or a positive number of steps")
        if elapsed == 1:
            return self
        return Dynamics(self.decay**elapsed, self.noise * _accumulated(self.decay, elapsed))


@dataclass(frozen=True)
class StateSpace:
    """θ_k = m₀ + γ (θ_{k−1} − m₀) + w_k, w_k ~ N(0, q P₀); one step is one batch.

    `decay` γ lies in (0, 1]; `process_noise` q is a multiple of the prior covariance. Unless given it is
    1 − γ², which keeps the prior stationary. γ = 1 and q = 0 is the static model, where the order of the
    data does not matter to the exact posterior.

    Either may be a mapping from site names to numbers: sites that it does not name are not decayed, and have
    the process noise 1 − γ² of their own decay. `for_sites` resolves it for the sites of a program.

    Raises:
        UserError: decay outside (0, 1], or negative process noise.
    """

    decay: float | Mapping[str, float] = 1.0
    process_noise: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for place, decay in _by_name(self.decay):
            if not 0 < decay <= 1:
                raise UserError(
                    f"--decay {place}{decay:g}: must lie above 0 and not above 1 (1: no forgetting)"
                )
        for place, noise in _by_name(self.process_noise):
            if not 0 <= noise < math.inf:
                raise UserError(f"--process-noise {place}{noise:g}: must be 0 or a positive number")

    @property
    def noise(self) -> float | Tensor:
        """q: the process noise as a multiple of the prior covariance, the same for all weights."""
        return as_dynamics(self).noise

    @property
    def is_static(self) -> bool:
        """Whether nothing changes between batches."""
        decays = [decay for _, decay in _by_name(self.decay)]
        noises = [noise for _, noise in _by_name(self.process_noise)]
        return all(decay == 1 for decay in decays) and all(noise == 0 for noise in noises)

    def for_sites(self, sites: Mapping[str, int], like: Tensor) -> Dynamics:
        """Decay and noise of a program's weights, from its `sites`: name -> number of weights, in flat order.

        Numbers where all sites agree, else tensors (P,) in the dtype and on the device of `like`.

        Raises:
            UserError: a mapping names a site that the program does not have.
        """
        own = self._by_site(sites)
        decays = {site: decay for site, (decay, _) in own.items()}
        noises = {site: noise for site, (_, noise) in own.items()}
        return Dynamics(_flat(decays, sites, like), _flat(noises, sites, like))

    def by_site(self, sites: Iterable[str]) -> dict[str, Dynamics]:
        """The decay and the noise of each of a program's sites, as numbers.

        Raises:
            UserError: a mapping names a site that the program does not have.
        """
        return {site: Dynamics(*own) for site, own in self._by_site(list(sites)).items()}

    def _by_site(self, sites: Collection[str]) -> dict[str, tuple[float, float]]:
        for option, value in (("--decay", self.decay), ("--process-noise", self.process_noise)):
            for site in value if isinstance(value, Mapping) else ():
                if site not in sites:
                    raise UserError(
                        f"{option} {site}: the program has no such site.{nearest(site, sites)} "
                        f"It has: {', '.join(sites)}"
                    )
        decays = {site: _of(self.decay, site, 1.0) for site in sites}
        return {site: (decay, _of(self.process_noise, site, 1 - decay**2)) for site, decay in decays.items()}


def as_dynamics(state_space: StateSpace | Dynamics) -> Dynamics:
    """The dynamics of a state space that treats all weights alike; one already resolved as it is.

    Raises:
        UserError: values per site, which only `StateSpace.for_sites` can resolve.
    """
    if isinstance(state_space, Dynamics):
        return state_space
    decay, noise = state_space.decay, state_space.process_noise
    if isinstance(decay, Mapping) or isinstance(noise, Mapping):
        raise UserError("decay or process noise by site: resolve it with StateSpace.for_sites first")
    return Dynamics(decay, 1 - decay**2 if noise is None else noise)


def _by_name(value: float | Mapping[str, float] | None) -> list[tuple[str, float]]:
    """What to say before each number, and the number."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(f"{site}=", number) for site, number in value.items()]
    return [("", value)]


def _of(value: float | Mapping[str, float] | None, site: str, default: float) -> float:
    if value is None:
        return default
    return value.get(site, default) if isinstance(value, Mapping) else value


def _flat(values: Mapping[str, float], sites: Mapping[str, int], like: Tensor) -> float | Tensor:
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return torch.cat([like.new_full((size,), values[site]) for site, size in sites.items()])


def _all(values: float | Tensor, number: float) -> bool:
    return bool((values == number).all()) if isinstance(values, Tensor) else values == number


def _accumulated(decay: float | Tensor, elapsed: float) -> float | Tensor:
    """1 + γ² + γ⁴ + ... over `elapsed` terms: (1 − γ^2Δ) / (1 − γ²), Δ at γ = 1."""
    if isinstance(decay, Tensor):
        squares = 2 * decay.double().log()
        many = torch.expm1(elapsed * squares) / torch.expm1(squares)
        return torch.where(squares == 0, elapsed, many).to(decay)
    return (
        elapsed if decay == 1 else math.expm1(elapsed * 2 * math.log(decay)) / math.expm1(2 * math.log(decay))
    )
