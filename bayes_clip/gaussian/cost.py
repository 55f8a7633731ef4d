"""What each covariance costs in memory and time, said before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian.low_rank import DEFAULT_RANK

WORKING_COPIES = 3  # the covariance, its update, and one temporary of the same size
EIGEN = 9  # D³ operations to find all eigenvectors of a (D, D) matrix (Golub & Van Loan 2013, section 8.3)
GIBIBYTE = 1024**3
LARGE = GIBIBYTE
MOST_JOINT_LOGITS = 1024


@dataclass(frozen=True)
class Cost:
    """What a family holds for C classes and D features, and its orders of growth; b rows in a batch.

    `joint` families see a batch through the covariance of all its logits, (C b, C b), and every step of an
    update rule factors it: O((C b)³). The others have C blocks (b, b): O(C b³).
    """

    numbers: Callable[[int, int], int]  # in the dtype of the fit
    memory: str
    time: str  # per batch, beside the steps of the rule
    joint: bool
    # operations, and numbers read and written, per batch of b rows beside the rule: (C, D, b) -> int
    flops: Callable[[int, int, int], int]
    moved: Callable[[int, int, int], int]
    doubles: Callable[[int, int], int] = lambda classes, features: 0  # in float64 whatever the fit's dtype
    copies: int = WORKING_COPIES  # held while it is updated
    eigen: Callable[[int, int], int] = lambda classes, features: 0  # operations of eigenvectors, in float64


COSTS: dict[str, Cost] = {
    # P Φᵀ, its Gram matrix, P Φᵀ B, and (P Φᵀ B) Φ P; P is read, the product written, both read, P written
    "full": Cost(
        lambda c, d: (c * d) ** 2,
        "C² D²",
        "C³ D² b",
        joint=True,
        flops=lambda c, d, b: 2 * c**2 * d * b * (d + b) + 2 * c**3 * d * b * (b + d),
        moved=lambda c, d, b: 5 * (c * d) ** 2,
    ),
    # two products with P, which is read and written once, in place
    "class_block": Cost(
        lambda c, d: c * d**2,
        "C D²",
        "C D² b",
        joint=False,
        flops=lambda c, d, b: 4 * c * d**2 * b + 4 * c * d * b**2,
        moved=lambda c, d, b: 2 * c * d**2,
        copies=2,
    ),
    "kronecker": Cost(
        lambda c, d: c**2 + d**2 + c * d + c + d,
        "C² + D² + C D",
        "C³ + D³ + C³ b²",
        joint=True,
        flops=lambda c, d, b: 2 * d * (c * b**2 + c * d + c**2 + 2 * b * d),
        moved=lambda c, d, b: 8 * d**2,
        doubles=lambda c, d: c**2 + d**2 + 1,
        eigen=lambda c, d: EIGEN * (c**3 + d**3),
    ),
    "low_rank": Cost(
        lambda c, d: c * d * (1 + min(DEFAULT_RANK, c * d)),
        "C D L",
        "C D L (L + b) + (L + C b)³",
        joint=True,
        flops=lambda c, d, b: 4 * c * d * DEFAULT_RANK * (2 * DEFAULT_RANK + b),
        moved=lambda c, d, b: 20 * c * d * DEFAULT_RANK,
    ),
    # the variances times Φᵀ, (C, D, b), its Gram blocks, and what each row takes from each variance
    "diagonal": Cost(
        lambda c, d: c * d,
        "C D",
        "C D b²",
        joint=False,
        flops=lambda c, d, b: 4 * c * d * b**2,
        moved=lambda c, d, b: 7 * c * d * b,
    ),
    "diagonal_variational": Cost(
        lambda c, d: c * d,
        "C D",
        "C D b²",
        joint=False,
        flops=lambda c, d, b: 2 * c * d * b**2,
        moved=lambda c, d, b: 3 * c * d * b,
    ),
}


def bytes_needed(covariance: str, classes: int, features: int, dtype: torch.dtype) -> int:
    """Bytes that one covariance of this family takes for C classes and D features.

    Raises:
        UserError: unknown family.
    """
    cost = _cost(covariance)
    return cost.numbers(classes, features) * dtype.itemsize + 8 * cost.doubles(classes, features)


def peak_bytes(covariance: str, classes: int, features: int, dtype: torch.dtype) -> int:
    """Bytes that the covariance and its copies take while it is updated.

    Raises:
        UserError: unknown family.
    """
    return _cost(covariance).copies * bytes_needed(covariance, classes, features, dtype)


def batch_work(
    covariance: str, classes: int, features: int, rows: int, itemsize: int
) -> tuple[int, int, int]:
    """What a batch costs beside the steps of its rule: operations, bytes moved, and those of eigenvectors.

    Raises:
        UserError: unknown family.
    """
    cost = _cost(covariance)
    moved = itemsize * cost.moved(classes, features, rows)
    return cost.flops(classes, features, rows), moved, cost.eigen(classes, features)


def allocation_note(covariance: str, classes: int, features: int, dtype: torch.dtype) -> str:
    """One line on what is about to be allocated where that is more than 1 GiB; empty where it is not.

    Raises:
        UserError: unknown family.
    """
    cost, needed = _cost(covariance), bytes_needed(covariance, classes, features, dtype)
    if needed <= LARGE:
        return ""
    return (
        f"--covariance {covariance} takes {needed / GIBIBYTE:.1f} GiB for {classes} classes and {features} "
        f"features, and {cost.copies * needed / GIBIBYTE:.1f} GiB while it is updated: O({cost.memory}) "
        f"memory, O({cost.time}) time per batch of b rows"
    )


def largest_batch(covariance: str, classes: int) -> int | None:
    """Rows above which a batch of this family costs too much; None where the family sets no such bound.

    A joint family's steps cost (C b)³: its batches hold 1024 logits, about 0.1 s a step on one CPU core.

    Raises:
        UserError: unknown family.
    """
    return max(1, MOST_JOINT_LOGITS // classes) if _cost(covariance).joint else None


def check_fits(covariance: str, classes: int, features: int, dtype: torch.dtype, device: str) -> None:
    """Refuse a covariance that would not fit in the device's free memory.

    Raises:
        UserError: says the size it would take and what there is.
    """
    needed = peak_bytes(covariance, classes, features, dtype)
    free = free_memory(device)
    if needed > free:
        raise UserError(
            f"--covariance {covariance} needs about {needed / GIBIBYTE:.1f} GiB for {classes} classes and "
            f"{features} features, and {free / GIBIBYTE:.1f} GiB are free; use --covariance "
            f"{'class_block' if covariance == 'full' else 'diagonal'}"
        )


def _cost(covariance: str) -> Cost:
    if covariance not in COSTS:
        raise UserError(
            f"--covariance {covariance}: no such covariance.{nearest(covariance, COSTS)} "
            f"Known: {', '.join(COSTS)}"
        )
    return COSTS[covariance]


def free_memory(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            fields = dict(line.split(":", 1) for line in table)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
