"""One writer per folder: a lock that the kernel holds on the folder itself.

It ends with the process, however that ends; nothing is left behind that a later run would have to judge.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bayes_clip.errors import UserError

UNLOCKED = "cannot be locked on this system, so never write to it from two processes at once"


@contextmanager
def locked(folder: Path | str) -> Iterator[Path]:
    """Hold the lock of `folder`, which is made if it is missing and removed again if it is left empty.

    Advisory: it binds those who ask, which is everything here that writes a posterior; readers need none.
    Where the system has no such lock (Windows, some network drives) a warning says so and work goes on.

    Raises:
        UserError: another process holds it, or the folder cannot be made.
    """
    target = Path(folder)
    made = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another --out") from error
    handle = _held(target)
    try:
        yield target
    finally:
        if made and not any(target.iterdir()):
            target.rmdir()
        if handle is not None:
            os.close(handle)


def _held(folder: Path) -> int | None:
    """An open descriptor of `folder` under the lock; None where there is no lock to be had."""
    if sys.platform == "win32":
        warnings.warn(f"{folder}: {UNLOCKED}", stacklevel=4)
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # its last holder may have removed the folder between the two lines above
        if folder.is_dir() and os.path.samestat(os.stat(folder), os.fstat(handle)):
            return handle
    except BlockingIOError:
        pass
    except OSError:
        os.close(handle)
        warnings.warn(f"{folder}: {UNLOCKED}", stacklevel=4)
        return None
    os.close(handle)
    raise UserError(f"{folder}: another process is writing there; wait until it is done")
