"""The model hub from a machine that has no network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants


@contextmanager
def hub_reachable(needed: bool) -> Iterator[None]:
    """Where the hub is `needed` and has no address, have only its cache looked at, and at once.

    Otherwise every file is tried for half a minute before anything is said.
    """
    if not needed or getproxies() or _has_address(urlsplit(constants.ENDPOINT).hostname or ""):
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _has_address(host: str) -> bool:
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True
