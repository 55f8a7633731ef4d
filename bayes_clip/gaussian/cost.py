"""What each covariance costs in memory, said before anything is allocated."""

from __future__ import annotations

import os

import torch

from bayes_clip.errors import UserError, nearest

WORKING_COPIES = 3  # the covariance, its update, and one temporary of the same size
GIBIBYTE = 1024**3


def bytes_needed(covariance: str, classes: int, features: int, dtype: torch.dtype) -> int:
    """Bytes that one covariance of this family takes for C classes and D features.

    Raises:
        UserError: unknown family.
    """
    numbers = {
        "full": (classes * features) ** 2,
        "class_block": classes * features**2,
        "diagonal": classes * features,
    }
    if covariance not in numbers:
        raise UserError(
            f"--covariance {covariance}: no such covariance.{nearest(covariance, numbers)} "
            f"Known: {', '.join(numbers)}"
        )
    return numbers[covariance] * dtype.itemsize


def check_fits(covariance: str, classes: int, features: int, dtype: torch.dtype, device: str) -> None:
    """Refuse a covariance that would not fit in the device's free memory.

    Raises:
        UserError: says the size it would take and what there is.
    """
    needed = WORKING_COPIES * bytes_needed(covariance, classes, features, dtype)
    free = free_memory(device)
    if needed > free:
        raise UserError(
            f"--covariance {covariance} needs about {needed / GIBIBYTE:.1f} GiB for {classes} classes and "
            f"{features} features, and {free / GIBIBYTE:.1f} GiB are free; use --covariance "
            f"{'class_block' if covariance == 'full' else 'diagonal'}"
        )


def free_memory(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as table:
            fields = dict(line.split(":", 1) for line in table)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
