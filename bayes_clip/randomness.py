"""Random numbers of one's own: Pyro and torch draw from global generators, which belong to the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_numbers(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Put torch's generators of the CPU and of `device` back as they were when the block ends.

    With a `seed` the block starts from it. Pyro's own `set_rng_seed` would reseed numpy and random for good.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
