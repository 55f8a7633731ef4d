"""What workers of a Ray cluster are given to do in tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from bayes_clip.errors import UserError


def work(shared: str, item: str) -> tuple[str, int]:
    """Two words joined, and the threads of the worker; some words have it refuse, fail or die."""
    if item == "refused":
        raise UserError("row 7: is wrong; mend it")
    if item == "broken":
        raise ZeroDivisionError("by nought")
    if item.startswith("dies once") and not Path(item.removeprefix("dies once ")).exists():
        Path(item.removeprefix("dies once ")).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{shared} {Path(item).name}", torch.get_num_threads()
