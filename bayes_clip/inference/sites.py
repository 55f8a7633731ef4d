"""The sample sites of a Pyro model: which weights it has, what it observes, and what cannot be filtered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Categorical, Independent, Normal
from torch import Tensor

from bayes_clip import observation as observations
from bayes_clip.errors import UserError
from bayes_clip.observation import SOFTMAX, Observation
from bayes_clip.randomness import own_random_numbers

PROBE_ROWS = 3
OBSERVED = "a Categorical, Normal or Bernoulli likelihood can be filtered"

PyroModel = Callable[..., Any]  # model(inputs, labels)
Node = dict[str, Any]


@dataclass(frozen=True)
class WeightSite:
    """One Gaussian sample site and its place in the flat weights."""

    name: str
    shape: torch.Size
    start: int
    stop: int

    def of(self, flat: Tensor) -> Tensor:
        """This site's weights (..., *shape) from flat weights (..., P)."""
        return flat[..., self.start : self.stop].reshape((*flat.shape[:-1], *self.shape))


@dataclass(frozen=True)
class Reading:
    """What the trace of a model says."""

    name: str
    sites: tuple[WeightSite, ...]
    prior_mean: Tensor  # (P,)
    prior_variance: Tensor  # (P,)
    observation: Observation
    outputs: int
    logits: Callable[[dict[str, Tensor], Tensor], Tensor]  # site values, inputs -> (N, K)
    targets: Callable[[Tensor, Tensor], Tensor]
    probe: Tensor  # inputs on which the model was looked at
    trials: tuple[Tensor, ...]  # flat weights away from the prior mean


def read_sites(model: PyroModel, like: Tensor) -> Reading:
    """Trace `model` on a few unit rows as wide as `like` (N, F), twice, with different weights.

    Raises:
        UserError: a latent that is not Gaussian, is discrete, has a value per datum, or a prior that depends
            on other latents; no likelihood, several, one of another kind, or one whose spread depends on the
            weights. The site and the reason are named.
    """
    name = getattr(model, "name", None) or getattr(model, "__name__", None) or type(model).__name__
    generator = torch.Generator().manual_seed(0)
    probe, other = _probes(like, generator)
    nodes = _nodes(model, probe, name)
    latents = {key: node for key, node in nodes.items() if not node["is_observed"]}
    seen = {key: node for key, node in nodes.items() if node["is_observed"]}
    if len(seen) != 1:
        raise UserError(
            f"{name}: observes {len(seen)} sites ({', '.join(seen)}); {OBSERVED}, and one of them"
        )
    if not latents:
        raise UserError(f"{name}: has no latent site; sample the weights with pyro.sample")
    (observed, likelihood) = next(iter(seen.items()))
    plates = {frame.name for frame in likelihood["cond_indep_stack"]}
    for key, node in latents.items():
        _check_latent(key, node, plates, name)
    observation = _observation(observed, likelihood, len(probe), name)
    sites, mean, variance = _flattened(latents, like)
    trials = tuple(
        mean + scale * variance.sqrt() * torch.randn(len(mean), generator=generator).to(mean)
        for scale in (1, 3)
    )
    _check_fixed(model, other, name, latents, sites, trials[0], observed, likelihood)

    def conditioned(values: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Node:
        with _quiet():
            trace = poutine.trace(poutine.condition(model, data=values)).get_trace(inputs, labels)
        return dict(trace.nodes[observed])

    def logits(values: dict[str, Tensor], inputs: Tensor) -> Tensor:
        unlabelled = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
        return _logits_of(conditioned(values, inputs, unlabelled)["fn"], len(inputs))

    def targets(inputs: Tensor, labels: Tensor) -> Tensor:
        values = {site.name: site.of(mean) for site in sites}
        return conditioned(values, inputs, labels)["value"]

    outputs = _logits_of(likelihood["fn"], len(probe)).shape[-1]
    return Reading(name, sites, mean, variance, observation, outputs, logits, targets, probe, trials)


def _probes(like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs to look at a model on: random unit rows with some of `like`, and others of another number."""
    rows = torch.randn(2 * PROBE_ROWS + 4, like.shape[-1], generator=generator)
    unit = torch.nn.functional.normalize(rows, dim=-1).to(like)
    some = like[:: max(1, len(like) // PROBE_ROWS)][:PROBE_ROWS]
    some = some[some.norm(dim=-1) > 0]
    return torch.cat([unit[:PROBE_ROWS], some]), unit[PROBE_ROWS:]


def _nodes(model: PyroModel, inputs: Tensor, name: str) -> dict[str, Node]:
    """The sample sites of one run, without plates and deterministic ones."""
    labels = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
    try:
        with _quiet(), own_random_numbers(inputs.device, 0), pyro.get_param_store().scope():
            nodes: dict[str, Any] = dict(poutine.trace(model).get_trace(inputs, labels).nodes)
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split("Trace Shapes")[0].split())[:200]
        raise UserError(
            f"{name}: does not run as model(inputs, labels) on {inputs.dtype} inputs {tuple(inputs.shape)} "
            f"({type(error).__name__}: {text}); mend the model (its tensors follow .to(inputs))"
        ) from error
    for key, node in nodes.items():
        if node["type"] == "param":
            raise UserError(
                f"{name}: '{key}' is a pyro.param; give it a fixed value, or make it a Normal site"
            )
        plate: Any = node["fn"] if node["type"] == "sample" else None
        if type(plate).__name__ == "_Subsample" and plate.subsample_size not in (None, plate.size):
            raise UserError(f"{name}: plate '{key}' takes a subsample; let it take all rows")
    return {
        key: node
        for key, node in nodes.items()
        if node["type"] == "sample"
        and type(node["fn"]).__name__ != "_Subsample"
        and not node["infer"].get("_deterministic")
    }


def _check_latent(key: str, node: Node, plates: set[str], name: str) -> None:
    base = _base(node["fn"])
    if node["scale"] != 1 or node["mask"] is not None:
        raise UserError(f"{name}: latent site '{key}' is scaled or masked; write its prior as it is")
    if getattr(node["fn"], "has_enumerate_support", False):
        raise UserError(
            f"{name}: latent site '{key}' is discrete ({type(base).__name__}); sum it out in the model"
        )
    if not isinstance(base, Normal):
        raise UserError(
            f"{name}: latent site '{key}' is a {type(base).__name__}, not a Normal; "
            "write it as a function of a Normal site"
        )
    if not (base.mean.isfinite().all() and (base.variance > 0).all() and base.variance.isfinite().all()):
        raise UserError(
            f"{name}: the prior of site '{key}' has a mean or scale that is NaN, infinite or not positive"
        )
    if plates & {frame.name for frame in node["cond_indep_stack"]}:
        raise UserError(
            f"{name}: latent site '{key}' has a value for every datum; only weights that all data share "
            "can be filtered"
        )


def _observation(key: str, node: Node, rows: int, name: str) -> Observation:
    if node["scale"] != 1 or node["mask"] is not None:
        raise UserError(f"{name}: site '{key}' is scaled or masked; feed the rows that count instead")
    base = _base(node["fn"])
    many = len(base.batch_shape) == 2 and not isinstance(base, Categorical)
    if base.batch_shape[:1] != (rows,) or len(base.batch_shape) > 1 + many:
        raise UserError(
            f"{name}: site '{key}' has the batch shape {tuple(base.batch_shape)} for {rows} rows; rows come "
            "first and alone, or for Normal and Bernoulli (rows, outputs) with .to_event(1)"
        )
    if isinstance(base, Categorical):
        return SOFTMAX
    if isinstance(base, Bernoulli):
        return observations.Bernoulli()
    if isinstance(base, Normal):
        spread = base.variance.reshape(rows, -1)
        if not bool((spread == spread[:1]).all()):
            raise UserError(
                f"{name}: the spread of site '{key}' differs between rows; give all rows the same"
            )
        return observations.Gaussian(spread[0].detach())
    raise UserError(f"{name}: site '{key}' observes a {type(base).__name__}; {OBSERVED}")


def _flattened(latents: dict[str, Node], like: Tensor) -> tuple[tuple[WeightSite, ...], Tensor, Tensor]:
    sites, start = [], 0
    for key, node in latents.items():
        stop = start + node["value"].numel()
        sites.append(WeightSite(key, node["value"].shape, start, stop))
        start = stop
    moments = [
        torch.cat(
            [
                getattr(_base(node["fn"]), part).expand(node["value"].shape).reshape(-1)
                for node in latents.values()
            ]
        )
        for part in ("mean", "variance")
    ]
    return tuple(sites), moments[0].detach().to(like), moments[1].detach().to(like)


def _check_fixed(
    model: PyroModel,
    inputs: Tensor,
    name: str,
    latents: dict[str, Node],
    sites: tuple[WeightSite, ...],
    weights: Tensor,
    observed: str,
    likelihood: Node,
) -> None:
    """Refuse priors and spreads that move: run once more, with other weights and other inputs."""
    values = {site.name: site.of(weights) for site in sites}
    again = _nodes(poutine.condition(model, data=values), inputs, name)
    if again.keys() != latents.keys() | {observed}:
        raise UserError(f"{name}: its sites change from run to run; a model that is filtered has fixed sites")
    for key, node in latents.items():
        before, after = _base(node["fn"]), _base(again[key]["fn"])
        if not (torch.equal(before.mean, after.mean) and torch.equal(before.variance, after.variance)):
            raise UserError(
                f"{name}: the prior of site '{key}' depends on other latent sites or on the inputs; write it "
                "as a mean plus a scale times a standard Normal site, with the product in the logits"
            )
    before, after = _base(likelihood["fn"]), _base(again[observed]["fn"])
    if isinstance(before, Normal) and not torch.equal(before.variance[0], after.variance[0]):
        raise UserError(
            f"{name}: the spread of site '{observed}' depends on the weights or inputs; give it a fixed value"
        )


def _base(distribution: Any) -> Any:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _logits_of(distribution: Any, rows: int) -> Tensor:
    base = _base(distribution)
    return base.mean.reshape(rows, -1) if isinstance(base, Normal) else base.logits.reshape(rows, -1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pyro's argument checks, which cannot run inside torch.func."""
    with pyro.validation_enabled(False):
        yield
