"""Where features of pictures are kept: one choice for the whole process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

VARIABLE = "BAYES_CLIP_CACHE"
Choice = Path | Literal["default"] | None
_chosen: list[Choice] = ["default"]


def store_folder() -> Path | None:
    """Where features of pictures are kept; None for nowhere.

    By `use_store`, else ``BAYES_CLIP_CACHE`` (a folder; empty: nowhere), else the user's folder for what can
    be made again: ``~/.cache/bayes_clip``, on macOS ``~/Library/Caches``, on Windows ``%LOCALAPPDATA%``.
    """
    chosen = _chosen[-1]
    if chosen != "default":
        return chosen
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    if sys.platform == "win32":
        place = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        place = Path.home() / "Library" / "Caches"
    else:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return place / "bayes_clip"


def use_store(place: str | Path | None) -> None:
    """Keep features of pictures in a folder from now on, or nowhere (None); "default": as at first."""
    _chosen[-1] = "default" if place == "default" else None if place is None else Path(place)


def is_chosen() -> bool:
    """Whether `use_store` has had its say."""
    return _chosen[-1] != "default"


def is_default() -> bool:
    """Whether features go to the user's cache folder because nobody named another place."""
    return not is_chosen() and VARIABLE not in os.environ
