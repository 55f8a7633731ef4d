"""Reading a Pyro model: its Gaussian weights, its observation, and logits as a function of the weights.

Everything comes from the model's own trace, so that the prior and the likelihood are written down once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.inference.linearised import AnyBatch, Batch, CurvedBatch
from bayes_clip.inference.sites import PyroModel, Reading, WeightSite, read_sites
from bayes_clip.inference.text_side import two_towers
from bayes_clip.model import AdapterModel
from bayes_clip.observation import Observation

BYTES_PER_CHUNK = 2**28  # of Jacobians that are made at once


@dataclass(frozen=True)
class Program:
    """A model of K logits per row, with independent Gaussian weights.

    A linear head (`is_head`) has weights (C, D) and logits Φ Wᵀ with one design for all classes; any other
    program has flat weights (P,): its sites, one after another. `is_linear`: the logits are affine in the
    weights, so that linearising them is exact.
    """

    name: str
    sites: tuple[WeightSite, ...]
    prior_mean: Tensor  # (C, D) or (P,)
    prior_variance: Tensor  # the same shape
    observation: Observation
    outputs: int  # K
    is_head: bool
    is_linear: bool
    logits: Callable[[Tensor, Tensor], Tensor]  # weights shaped like the mean, inputs (N, F) -> (N, K)
    linearise: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]  # see `linearised`
    targets: Callable[[Tensor, Tensor], Tensor]  # inputs, labels (N,) -> what the likelihood site observes

    @property
    def sizes(self) -> dict[str, int]:
        """Number of weights of each site, in flat order."""
        return {site.name: site.stop - site.start for site in self.sites}

    def batch(self, inputs: Tensor, labels: Tensor) -> AnyBatch:
        """Labelled rows as the filter sees them."""
        targets = self.targets(inputs, labels)
        if self.is_linear:
            design, offset = self.linearise(inputs, self.prior_mean)
            return Batch(design, targets, offset)
        return CurvedBatch(
            lambda weights: self.logits(weights, inputs),
            lambda weights: self.linearise(inputs, weights),
            targets,
        )

    def values(self, weights: Tensor) -> dict[str, Tensor]:
        """Weights (..., *shape of the mean) as the values of the sites."""
        flat = weights.flatten(weights.ndim - self.prior_mean.ndim)
        return {site.name: site.of(flat) for site in self.sites}

    def design(self, inputs: Tensor) -> Tensor:
        """H at the prior mean: (N, D) for a head, else (N, K, P)."""
        return self.linearise(inputs, self.prior_mean)[0]


def read_program(model: PyroModel, like: Tensor) -> Program:
    """Read `model`; tensors come in the dtype and on the device of the example inputs `like` (N, F).

    Raises:
        UserError: what cannot be filtered, by site and reason; see `read_sites`.
    """
    reading = read_sites(model, like)
    if _is_plain(model):
        reading = replace(reading, targets=lambda inputs, labels: labels)
    towers = two_towers(model, lambda flat: {site.name: site.of(flat) for site in reading.sites})
    raw = _raw_logits(model, reading) if towers is None else towers.logits
    _check_rows(reading, raw)
    design = _head_design(reading, raw)
    if design is not None:
        return _head(reading, design)
    flat = _centred(raw) if reading.observation.name == "softmax" else raw
    curved = _jacobian(reading, flat) if towers is None else _centred(towers.jacobian, classes=1)
    linear = _is_linear(reading, flat, curved)

    def linearise(inputs: Tensor, at: Tensor) -> tuple[Tensor, Tensor | None]:
        jacobian = curved(at, inputs)
        return jacobian, flat(at, inputs) - torch.einsum("bkp,p->bk", jacobian, at)

    return Program(
        reading.name,
        reading.sites,
        reading.prior_mean,
        reading.prior_variance,
        reading.observation,
        reading.outputs,
        is_head=False,
        is_linear=linear,
        logits=flat,
        linearise=linearise,
        targets=reading.targets,
    )


def _raw_logits(model: PyroModel, reading: Reading) -> Callable[[Tensor, Tensor], Tensor]:
    """Logits (N, K) of flat weights (P,) and inputs (N, F); a softmax read from a trace comes normalised."""

    def logits(flat: Tensor, inputs: Tensor) -> Tensor:
        values = {site.name: site.of(flat) for site in reading.sites}
        if isinstance(model, AdapterModel) and _is_plain(model):
            return model.logits(values, inputs)
        return reading.logits(values, inputs)

    return logits


def _centred(
    logits: Callable[[Tensor, Tensor], Tensor], classes: int = -1
) -> Callable[[Tensor, Tensor], Tensor]:
    """The same minus their mean over the classes, which changes no probability and no update of a softmax.

    `classes`: the dimension of the classes.

    What all logits of a row share, a normaliser or an offset that depends on the weights, must neither hide
    that they are linear nor pass for uncertainty.
    """

    def centred(flat: Tensor, inputs: Tensor) -> Tensor:
        seen = logits(flat, inputs)
        return seen - seen.mean(classes, keepdim=True)

    return centred


def _check_rows(reading: Reading, logits: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Refuse programs whose rows depend on each other: their Jacobian is taken row by row."""
    if not logits(reading.prior_mean, reading.probe).isfinite().all():
        raise UserError(f"{reading.name}: its logits are NaN or infinite at the prior mean; mend the model")
    together = logits(reading.trials[0], reading.probe)
    alone = [logits(reading.trials[0], row[None]) for row in reading.probe]
    if not _agree(torch.cat(alone), together):
        raise UserError(f"{reading.name}: the logits of a row depend on the other rows; use each row alone")


def _is_plain(model: PyroModel) -> bool:
    """Whether its likelihood is AdapterModel's own: Categorical over `logits`, labels as they come."""
    return isinstance(model, AdapterModel) and type(model).__call__ is AdapterModel.__call__


def _jacobian(
    reading: Reading, flat: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """∂ logits / ∂ weights (N, K, P): backwards where there are fewer logits than weights, else forwards."""
    size = len(reading.prior_mean)
    differentiate: Any = torch.func.jacrev if reading.outputs <= size else torch.func.jacfwd
    row = differentiate(lambda weights, one: flat(weights, one[None])[0])
    numbers = reading.outputs * size * reading.prior_mean.element_size()
    chunk = max(1, BYTES_PER_CHUNK // numbers)
    return torch.func.vmap(row, in_dims=(None, 0), chunk_size=chunk)


def _head_design(
    reading: Reading, flat: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor], Tensor] | None:
    """The design (N, D) that all classes share, if the logits are Φ Wᵀ up to a common offset; else None.

    Φ is read off the logits themselves, under weights that give every class a feature of its own: one or few
    plain runs of the program, where a gradient by row would make (C, D) numbers for each.
    """
    shape = reading.sites[0].shape
    if len(reading.sites) > 1 or len(shape) != 2 or shape[0] != reading.outputs:
        return None
    classes, features = shape
    centred = reading.observation.name == "softmax" and classes > 1
    at_once = classes - 1 if centred else classes
    bases = _basis_weights(reading.prior_mean, classes, features, at_once)
    rows = max(1, BYTES_PER_CHUNK // (len(bases) * classes * bases.element_size()))
    every = torch.vmap(flat, in_dims=(0, None))

    def design(inputs: Tensor) -> Tensor:
        parts = []
        for part in inputs.split(rows):
            seen = every(bases, part)  # (passes, n, C)
            # what all logits of a row share is what the last class has, whose weights are zero
            seen = seen[..., :at_once] - seen[..., -1:] if centred else seen
            parts.append(seen.transpose(0, 1).flatten(1)[:, :features])
        return torch.cat(parts)

    for weights in reading.trials:
        actual, wanted = flat(weights, reading.probe), design(reading.probe) @ weights.reshape(shape).mT
        if centred:
            actual, wanted = (seen - seen.mean(-1, keepdim=True) for seen in (actual, wanted))
        if not _agree(actual, wanted):
            return None
    return design


def _basis_weights(like: Tensor, classes: int, features: int, at_once: int) -> Tensor:
    """Flat weights (passes, C D): in each pass `at_once` classes have one feature each, in turn."""
    index = torch.arange(features, device=like.device)
    bases = like.new_zeros(-(-features // at_once), classes, features)
    bases[index // at_once, index % at_once, index] = 1
    return bases.flatten(1)


def _head(reading: Reading, design: Callable[[Tensor], Tensor]) -> Program:
    shape = reading.sites[0].shape
    return Program(
        reading.name,
        reading.sites,
        reading.prior_mean.reshape(shape),
        reading.prior_variance.reshape(shape),
        reading.observation,
        reading.outputs,
        is_head=True,
        is_linear=True,
        logits=lambda weights, inputs: design(inputs) @ weights.mT,
        linearise=lambda inputs, at: (design(inputs), None),
        targets=reading.targets,
    )


def _is_linear(
    reading: Reading, flat: Callable[[Tensor, Tensor], Tensor], curved: Callable[[Tensor, Tensor], Tensor]
) -> bool:
    jacobian, start = curved(reading.prior_mean, reading.probe), flat(reading.prior_mean, reading.probe)
    for weights in reading.trials:
        change = torch.einsum("bkp,p->bk", jacobian, weights - reading.prior_mean)
        if not _agree(flat(weights, reading.probe), start + change):
            return False
    return True


def _agree(actual: Tensor, wanted: Tensor) -> bool:
    """Equal but for rounding."""
    tolerance = 1e-4 if actual.dtype == torch.float32 else 1e-9
    return bool((actual - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-30))


def require_head(program: Program, what: str) -> None:
    """Refuse a program that is no linear head where one is needed.

    Raises:
        UserError: says what needs it.
    """
    if not program.is_head:
        raise UserError(
            f"{program.name}: {what} needs a linear head (one site of class weights (C, D) and logits linear "
            "in it); use --covariance full, low_rank or diagonal"
        )
