"""How the authors of a method train it: a recipe that the engine `sgd` follows to its last step.

A recipe is written down once, beside the model program it trains, and says where it comes from and where we
deviate from it. Its numbers are checked against the range that published recipes of adapters keep to, so that
a slip of the decimal point is refused instead of trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bayes_clip.errors import UserError

# Authors who train class weights start from text features as their encoder leaves them, and the longer they
# are the less a step turns them. A task keeps texts of unit length: this is roughly the length under OpenAI's
# CLIP, a round number in place of theirs and not a measured one.
TEXT_LENGTH = 10.0
MOST_SHOTS = 16  # published recipes end here: more shots are trained as 16
LARGEST_RATE = 1.0
LARGEST_DECAY = 0.1  # CLIP-LoRA's first release said 1e2 where 1e-2 was meant, and collapsed
LARGEST_EPSILON = 1e-2
MOST_EPOCHS = 1000
MOST_STEPS = 100_000


@dataclass(frozen=True)
class Recipe:
    """Optimizer, schedule and length of a training, with its source and where we deviate from it.

    Its length is said in one way: `epochs` over the support set, the same for all or by shots (the entry of
    the largest number of shots that is not above those at hand, else the smallest); `steps`; or
    `steps_per_shot`. Weight decay is torch's own: towards zero, in the gradient for sgd and adam, apart from
    it for adamw; it knows nothing of the prior.

    Raises:
        UserError: a length said in no way or in two, or a number outside the range of published recipes.
    """

    source: str
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: float
    epochs: int | Mapping[int, int] | None = None
    batch_size: int | None = None  # None: the whole support set
    momentum: float = 0.0
    weight_decay: float = 0.0
    epsilon: float = 1e-8
    schedule: Literal["constant", "cosine"] = "cosine"
    warm_up_epochs: int = 0
    augmentation: bool = False  # random crops and mirror images, where pictures are at hand
    deviations: tuple[str, ...] = ()
    steps: int | None = None
    steps_per_shot: int | None = None
    cosine_by: Literal["epoch", "step"] = "epoch"  # when the rate moves
    final_rate: float = 0.0  # where the cosine would end, one move after the last
    warm_up_rate: float = 1e-5
    drop_last: bool = False  # whether an epoch leaves out rows that fill no batch, if it has a full one
    smallest_crop: float = 0.08  # share of the picture that a random crop keeps at least

    def __post_init__(self) -> None:
        said = [length for length in (self.epochs, self.steps, self.steps_per_shot) if length is not None]
        if len(said) != 1:
            self._refuse("needs its length in one way: epochs, steps or steps_per_shot")
        self._within("optimizer", self.optimizer in ("sgd", "adam", "adamw"), "sgd, adam or adamw")
        self._within("schedule", self.schedule in ("constant", "cosine"), "constant or cosine")
        self._within("cosine_by", self.cosine_by in ("epoch", "step"), "epoch or step")
        rate, least = self.learning_rate, self.final_rate
        self._within("learning_rate", 0 < rate <= LARGEST_RATE, f"above 0 and at most {LARGEST_RATE:g}")
        self._within("final_rate", 0 <= least <= rate, "0 to the learning rate")
        self._within("warm_up_rate", 0 <= self.warm_up_rate <= rate, "0 to the learning rate")
        self._within("weight_decay", 0 <= self.weight_decay <= LARGEST_DECAY, f"0 to {LARGEST_DECAY:g}")
        self._within("momentum", 0 <= self.momentum < 1, "at least 0 and below 1")
        if self.momentum and self.optimizer != "sgd":
            self._refuse(f"momentum {self.momentum:g} is of sgd; {self.optimizer} has its own")
        self._within("epsilon", 0 < self.epsilon <= LARGEST_EPSILON, f"above 0, at most {LARGEST_EPSILON:g}")
        self._within("smallest_crop", 0 < self.smallest_crop <= 1, "above 0 and at most 1")
        self._within("batch_size", self.batch_size is None or self.batch_size >= 1, "at least 1, or None")
        alike = 1 if self.epochs is None else self.epochs
        by_shots = alike if isinstance(alike, Mapping) else {1: alike}
        lengths = by_shots.values()
        most = bool(by_shots) and all(1 <= length <= MOST_EPOCHS for length in lengths)
        self._within("epochs", most and min(by_shots) >= 1, f"1 to {MOST_EPOCHS}, for one shot or more")
        self._within("steps", self.steps is None or 1 <= self.steps <= MOST_STEPS, f"1 to {MOST_STEPS}")
        per_shot = self.steps_per_shot
        self._within("steps_per_shot", per_shot is None or 1 <= per_shot <= MOST_STEPS, f"1 to {MOST_STEPS}")
        within = self.warm_up_epochs >= 0 and (self.epochs is None or self.warm_up_epochs < min(lengths))
        self._within("warm_up_epochs", within, "0 to fewer than the epochs")

    def batches(self, rows: int) -> int:
        """Batches of one epoch over so many rows."""
        size = self.batch_size or rows
        return max(1, rows // size) if self.drop_last else -(-rows // size)

    def length(self, rows: int, shots: int) -> int:
        """Steps of the whole training on `rows` rows, `shots` of the largest class."""
        shots = min(shots, MOST_SHOTS)
        if self.steps is not None:
            return self.steps
        if self.steps_per_shot is not None:
            return self.steps_per_shot * shots
        if isinstance(self.epochs, Mapping):
            said = [known for known in self.epochs if known <= shots]
            return self.epochs[max(said) if said else min(self.epochs)] * self.batches(rows)
        assert self.epochs is not None
        return self.epochs * self.batches(rows)

    def rate(self, step: int, batches: int, steps: int) -> float:
        """Learning rate of step 0, 1, ..., `steps` − 1, with so many `batches` an epoch.

        Warm-up epochs have a constant rate, and the cosine begins after them without being shortened, as in
        CoOp's trainer: rate(e) = (1 + cos(π (e − w) / E)) / 2 of the learning rate in epoch e of E with w
        warm-up epochs. By step: the same with steps for epochs.
        """
        epoch, warm_up = step // batches, self.warm_up_epochs
        if epoch < warm_up:
            return self.warm_up_rate
        if self.schedule == "constant":
            return self.learning_rate
        if self.cosine_by == "step":
            done = (step - warm_up * batches) / steps
        else:
            done = (epoch - warm_up) / -(-steps // batches)
        left = (1 + math.cos(math.pi * done)) / 2
        return self.final_rate + (self.learning_rate - self.final_rate) * left

    def _within(self, name: str, holds: bool, wanted: str) -> None:
        if not holds:
            self._refuse(f"{name} {getattr(self, name)} is out of range; published recipes keep to {wanted}")

    def _refuse(self, what: str) -> None:
        raise UserError(f"recipe of {self.source}: {what}")
