"""The packages that bayes_clip is compared with: which are there, in which version, how to get the others."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

EXTRA = "pip install --editable '.[bench]'"


class MissingPeer(Exception):
    """A peer is not installed; the message is the line that installs it."""


def titled(distribution: str, *details: str) -> str:
    """The name of a peer as results.csv has it: package, version, backend.

    Raises:
        MissingPeer: it is not installed.
    """
    try:
        number = version(distribution)
    except PackageNotFoundError:
        raise MissingPeer(f"{distribution} is not installed; {EXTRA}") from None
    return " ".join([distribution, number, *details])
