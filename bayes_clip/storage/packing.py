"""Frozen dataclasses of tensors as named tensors and back: what files hold.

Fields that are no tensors (a rank, say) are numbers in the JSON beside. Batches differ in size, so the
tensors of their sites are laid end to end, with their shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from bayes_clip.inference.kalman import Site
from bayes_clip.inference.stream import Kept, Stream

Numbers = dict[str, int | float | str | None]
Thing = TypeVar("Thing")


def fields_of(thing: Any) -> tuple[dict[str, Tensor], Numbers]:
    """The tensors and the plain numbers of a dataclass, by the names of its fields."""
    values = {field.name: getattr(thing, field.name) for field in fields(thing)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


def rebuilt(
    kind: type[Thing], tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: str
) -> Thing:
    """The `kind` whose fields these are, on `device`; names that are no fields of it raise TypeError."""
    return kind(**{name: tensor.to(device) for name, tensor in tensors.items()}, **numbers)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, named ``prefix.name``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def taken(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the tensors named ``prefix.name`` out of `tensors`; returns them as ``name``."""
    names = [name for name in tensors if name.startswith(f"{prefix}.")]
    return {name.removeprefix(f"{prefix}."): tensors.pop(name) for name in names}


def pack_sites(sites: Sequence[Site]) -> dict[str, Tensor]:
    """The sites of all batches: per field the numbers end to end and the shape of each."""
    packed = {}
    for name in _site_fields() if sites else ():
        tensors = [getattr(site, name) for site in sites]
        packed[name] = torch.cat([tensor.reshape(-1) for tensor in tensors])
        packed[f"{name}_shapes"] = torch.tensor([tensor.shape for tensor in tensors])
    return packed


def unpack_sites(packed: Mapping[str, Tensor], device: str = "cpu") -> tuple[Site, ...]:
    """The sites that `pack_sites` packed."""
    if not packed:
        return ()
    columns = {name: _split(packed[name], packed[f"{name}_shapes"], device) for name in _site_fields()}
    return tuple(Site(*values) for values in zip(*columns.values(), strict=True))


def pack_stream(stream: Stream) -> dict[str, Tensor]:
    """The tensors of a stream."""
    tensors = {"prior_mean": stream.prior_mean, "prior_variance": stream.prior_variance}
    if stream.noise is not None:
        tensors["noise"] = stream.noise
    if stream.kept is not None:
        kept = stream.kept
        tensors |= {"inputs": kept.inputs, "labels": kept.labels, "sizes": torch.tensor(kept.sizes)}
        tensors |= under("sites", pack_sites(kept.sites))
    return tensors


def unpack_stream(tensors: dict[str, Tensor], numbers: Mapping[str, Any], device: str) -> Stream:
    """The stream that `pack_stream` packed; KeyError where tensors are missing."""
    sites = unpack_sites(taken("sites", tensors), device)
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    kept = None
    if "sizes" in moved:
        kept = Kept(moved["inputs"], moved["labels"], tuple(moved["sizes"].tolist()), sites)
    noise = moved.get("noise")
    return Stream(moved["prior_mean"], moved["prior_variance"], kept=kept, noise=noise, **numbers)


def _site_fields() -> list[str]:
    return [field.name for field in fields(Site)]


def _split(flat: Tensor, shapes: Tensor, device: str) -> list[Tensor]:
    sizes = [math.prod(shape) for shape in shapes.tolist()]
    parts = zip(flat.to(device).split(sizes), shapes.tolist(), strict=True)
    return [part.reshape(shape).clone() for part, shape in parts]
