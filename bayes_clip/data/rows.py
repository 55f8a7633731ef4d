"""Rows of a task or of a feature file: features, their lengths, and the pictures behind them where known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:  # open_clip takes seconds to import; feature tasks do without
    from bayes_clip.backbone.encoder import Picture


@dataclass(frozen=True, eq=False, repr=False)
class Pictures:
    """Pictures by number, read when they are wanted: most programs never ask for them."""

    read: Callable[[int], Picture]
    numbers: tuple[int, ...]
    mirrors: bool = True  # whether a mirror image is still a picture of the same class
    called: Callable[[int], str] | None = None  # what a picture is called by its number: its path

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Picture]:
        return (self.read(number) for number in self.numbers)

    @property
    def names(self) -> tuple[str, ...] | None:
        """What each is called, in order: its path; None where they have no names."""
        return None if self.called is None else tuple(self.called(number) for number in self.numbers)

    def pick(self, kept: Tensor) -> Pictures:
        """Those at the places `kept`: indices, or a mask."""
        places = kept.nonzero()[:, 0] if kept.dtype is torch.bool else kept
        return replace(self, numbers=tuple(self.numbers[place] for place in places.tolist()))


@dataclass(frozen=True, eq=False, repr=False)
class Rows:
    """N rows: unit features (N, D), their norms (N,) before they were scaled, and their pictures."""

    features: Tensor
    norms: Tensor | None = None
    pictures: Pictures | None = None

    def __len__(self) -> int:
        return len(self.features)

    def pick(self, kept: Tensor) -> Rows:
        """Those at the places `kept`: indices, or a mask."""
        norms, pictures = self.norms, self.pictures
        return Rows(
            self.features[kept],
            None if norms is None else norms[kept],
            None if pictures is None else pictures.pick(kept),
        )
