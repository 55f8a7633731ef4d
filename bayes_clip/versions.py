"""What a result was made with: it is written beside every comparison and into every posterior."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from bayes_clip import __version__

PACKAGES = ("torch", "pyro-ppl", "open_clip_torch", "numpy", "scikit-learn", "safetensors")


def installed_versions() -> dict[str, str]:
    """Version of bayes_clip, of Python, of the platform, and of the packages that results depend on."""
    found = {
        "bayes_clip": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
