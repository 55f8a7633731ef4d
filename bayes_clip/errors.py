"""The one exception meant for the person at the keyboard, and the hint for misspelled names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One line for the person: what is wrong (file, row or option) and how to mend it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'ekf'?"`` for the known name closest to `name`, or ``""`` if none is close.

    Case is ignored when comparing; the answer keeps the spelling of `known`.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean '{by_lower[matches[0]]}'?" if matches else ""
