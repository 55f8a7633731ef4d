"""Where the numbers were taken, for results.json beside them."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "torch", "numpy", "scipy", "pyro-ppl", "open_clip_torch", "scikit-learn", "laplace-torch",
    "backpack-for-pytorch", "posteriors",
)  # fmt: skip


def described(device: torch.device) -> dict[str, object]:
    """Processor, cores and threads, GPU if it is one, and versions."""
    found: dict[str, object] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return {**found, "versions": {name: _version(name) for name in PACKAGES}}


def device_name(device: torch.device) -> str:
    """The device as a row names it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
