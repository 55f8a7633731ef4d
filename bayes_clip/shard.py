"""The classes of one model shared out over processes (`torch.distributed`), and what they tell each other.

Sums are taken by every process in the same order from the same numbers, and so agree to the last bit: loops
that stop by what they compute stop together. For that all processes must run on the same kind of machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

from bayes_clip.errors import UserError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Shard:
    """The classes of this process among those of all: consecutive, as even as can be."""

    classes: int  # C of all
    rank: int
    processes: int

    @property
    def sizes(self) -> list[int]:
        """Classes of each process."""
        least, more = divmod(self.classes, self.processes)
        return [least + (rank < more) for rank in range(self.processes)]

    @property
    def own(self) -> slice:
        """Those of this process."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def everything(self, own: Tensor) -> Tensor:
        """(C, ...) of all classes from (n, ...) of this process's n; every process must ask."""
        return joined(own, self.sizes)

    def total(self, own: Tensor) -> Tensor:
        """The sum over the processes of equally shaped tensors; every process must ask."""
        return torch.stack(_gathered(own, self.processes)).sum(0)

    def of_first(self, make: Callable[[], Made]) -> Made:
        """What the first process makes; every process must ask, and waits for it.

        Raises:
            UserError: on every process, where `make` raises it on the first.
        """
        said: list[Any] = [None]
        if self.rank == 0:
            try:
                said = [(True, make())]
            except UserError as error:
                said = [(False, str(error))]
        distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
        went_well, made = said[0]
        if not went_well:
            raise UserError(made)
        return made


def joined(own: Tensor, sizes: list[int]) -> Tensor:
    """The parts of all processes along the first axis; `sizes` says how long each is."""
    most = max(sizes)
    padded = own.new_zeros(most, *own.shape[1:])
    padded[: len(own)] = own
    parts = _gathered(padded, len(sizes))
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _gathered(own: Tensor, processes: int) -> list[Tensor]:
    parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(processes)]
    distributed.all_gather(parts, own.contiguous())
    return parts
