"""A progress bar that shows only where somebody is watching and only when the work lasts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

SECONDS_BEFORE_SHOWN = 1.0

# Two live displays garble one terminal: while a bar is shown, loops inside it stay silent.
_shown: list[Progress] = []


def track(
    iterable: Iterable[Item], description: str, total: int | None = None, console: Console | None = None
) -> Iterator[Item]:
    """Yield the items of `iterable`, with a bar on standard error once it has lasted a second.

    Silent when standard error is no terminal, when the loop is short, or inside another tracked loop.
    `total` is taken from ``len(iterable)`` where it has one.
    """
    console = console or Console(stderr=True)
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not console.is_terminal:
        yield from iterable
        return
    start = time.monotonic()
    progress: Progress | None = None
    try:
        for done, item in enumerate(iterable):
            if progress is None and not _shown and time.monotonic() - start > SECONDS_BEFORE_SHOWN:
                progress = _new_progress(console)
                task_id = progress.add_task(description, total=total)
                _shown.append(progress)
                progress.start()
            if progress is not None:
                progress.update(task_id, completed=done)
            yield item
    finally:
        if progress is not None:
            progress.stop()
            _shown.remove(progress)


def _new_progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
