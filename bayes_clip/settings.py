"""What a person may choose about a fit, checked in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.cost import allocation_note
from bayes_clip.inference import ENGINE_COVARIANCES, ENGINES
from bayes_clip.inference.batches import LARGEST_BLOCK, ORDERS
from bayes_clip.inference.rules import DEFAULT_RULE, find_rule
from bayes_clip.predictive import find_predictive
from bayes_clip.state_space import StateSpace

FEW_ROWS = 8  # a batch of fewer is learned under little knowledge of the other classes
CLASS_PRIORS = {
    "support": "each class as often as among the labels",
    "even": "every class as often as any other",
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class FitSettings:
    """One model program under one engine. None means the engine's own default.

    Raises:
        UserError: an unknown name or a value out of range.
    """

    model: str = "linear_probe"
    engine: str = "ekf"
    covariance: str | None = None
    rule: str | None = None
    prior_variance: float | None = None  # None: chosen from the support set
    predictive: str = "auto"
    class_prior: str = "support"  # how often pictures to come are of each class; see `Posterior.class_offset`
    order: str = "balanced"
    batch_size: int | None = None
    block_size: int | None = None  # labels learned one by one in one visit of the covariance
    passes: int = 1
    decay: float | dict[str, float] = 1.0  # by site, if need be
    # multiples of the prior variance; auto: chosen by the prequential score
    process_noise: float | dict[str, float] | Literal["auto"] | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UserError(
                f"--engines {self.engine}: no such engine.{nearest(self.engine, ENGINES)} "
                f"Known: {', '.join(ENGINES)}"
            )
        known = {name for names in ENGINE_COVARIANCES.values() for name in names}
        if self.covariance is not None and self.covariance not in known:
            raise UserError(
                f"--covariance {self.covariance}: no such covariance.{nearest(self.covariance, known)} "
                f"Known: {', '.join(sorted(known))}"
            )
        find_rule(self.update_rule)
        _ = self.state_space
        find_predictive(self.predictive)
        if self.class_prior not in CLASS_PRIORS:
            raise UserError(
                f"--class-prior {self.class_prior}: no such prior.{nearest(self.class_prior, CLASS_PRIORS)} "
                f"Known: {', '.join(CLASS_PRIORS)}"
            )
        if self.order not in ORDERS:
            raise UserError(
                f"--order {self.order}: no such order.{nearest(self.order, ORDERS)} "
                f"Known: {', '.join(ORDERS)}"
            )
        if self.prior_variance is not None and not 0 < self.prior_variance < float("inf"):
            raise UserError(f"--prior-variance {self.prior_variance:g}: must be a positive number, or auto")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size}: must be at least 1")
        if self.block_size is not None and self.block_size < 1:
            raise UserError(f"--block-size {self.block_size}: must be at least 1")
        if self.passes < 1:
            raise UserError(f"--passes {self.passes}: must be at least 1")
        if self.passes > 1 and self.chooses_noise:
            raise UserError("--passes above 1 with --process-noise auto: a drifting stream is seen once")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: seeds are whole numbers from 0 on")
        if self.dtype not in DTYPES:
            raise UserError(f"--dtype {self.dtype}: must be float32 or float64")

    @property
    def update_rule(self) -> str:
        """Name of the filter's rule: the one asked for, else `expected`."""
        return DEFAULT_RULE if self.rule is None else self.rule

    @property
    def block_rows(self) -> int:
        """Labels of a block with `batch_size` 1: 64 at most, and 1 for labels in the order given.

        A block changes nothing but rounding; without blocks a stream in pieces is the whole bit for bit.
        """
        return self.block_size or (1 if self.order == "given" else LARGEST_BLOCK)

    @property
    def state_space(self) -> StateSpace:
        """The dynamics asked for; with a process noise that is still to be chosen, those without noise."""
        return StateSpace(self.decay, 0.0 if self.process_noise == "auto" else self.process_noise)

    @property
    def chooses_noise(self) -> bool:
        """Whether the process noise is to be chosen by the filter's prequential score."""
        return self.process_noise == "auto"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        return DTYPES[self.dtype]

    @property
    def family(self) -> str:
        """The covariance this engine will use: the one asked for where it offers it, else its default.

        Empty for engines without one.
        """
        offered = ENGINE_COVARIANCES[self.engine]
        if not offered:
            return ""
        return self.covariance if self.covariance in offered else offered[0]

    def allocation(self, classes: int, features: int) -> tuple[str, ...]:
        """What the covariance of a linear head (C, D) is about to take, where that is more than 1 GiB."""
        if self.engine not in ("ekf", "laplace"):
            return ()
        # Laplace inverts the whole precision in float64, whatever it returns.
        whole = self.engine == "laplace" and self.family == "full"
        dtype = torch.float64 if whole else self.torch_dtype
        note = allocation_note(self.family, classes, features, dtype)
        return (note,) if note else ()

    @property
    def unused(self) -> tuple[str, ...]:
        """Remarks on choices that this engine cannot follow, so that none is dropped in silence."""
        remarks = []
        if self.family and self.covariance not in (None, self.family):
            remarks.append(f"{self.engine} has no --covariance {self.covariance}: it takes {self.family}")
        moves = self.chooses_noise or not self.state_space.is_static
        if self.engine not in ("ekf", "zero_shot") and moves:
            remarks.append(f"{self.engine} knows no --decay or --process-noise: it fits the static model")
        if self.engine == "sgd" and self.prior_variance is not None:
            remarks.append("sgd follows a recipe without a prior: --prior-variance does not change it")
        if self.engine == "sgd" and self.batch_size is not None:
            remarks.append("sgd takes batches of the size that its recipe says: --batch-size is not used")
        return tuple(remarks)

    @property
    def remarks(self) -> tuple[str, ...]:
        """`unused`, and what is likely to disappoint."""
        few = self.batch_size is not None and self.batch_size < FEW_ROWS
        sweeps = self.family in ("class_block", "full") and self.state_space.is_static
        if self.engine == "ekf" and few and self.passes == 1 and sweeps and not self.chooses_noise:
            advice = (
                f"--batch-size {self.batch_size} in one pass depends much on the order of the labels; "
                "--passes 2 keeps what each said and sweeps over it"
            )
            return (*self.unused, advice)
        return self.unused
