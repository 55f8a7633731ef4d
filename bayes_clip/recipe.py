"""How the authors of a method train it: a recipe that the engine `sgd` follows to its last step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule and length of a training, with its source and where we deviate from it."""

    source: str
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    epochs: int | Mapping[int, int]  # the same for all, or by shots
    batch_size: int | None = None  # None: the whole support set
    momentum: float = 0.0
    weight_decay: float = 0.0
    epsilon: float = 1e-8
    schedule: Literal["constant", "cosine"] = "cosine"
    warm_up_epochs: int = 0
    augmentation: bool = False  # random crops and mirror images, where pictures are at hand
    deviations: tuple[str, ...] = ()
