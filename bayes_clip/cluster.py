"""Work on many processes by Ray: a local cluster of some workers, or one that is running already.

Each item is worked on as a task of its own; results come back in whatever order they end. An item whose
worker was killed is worked on again, up to three times. What many items need goes to the workers once and is
kept there while it is wanted. Nothing else imports ray, which is the extra ``bayes-clip[ray]``.
"""

from __future__ import annotations

import os
import re
import socket
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeVar

import torch

from bayes_clip.errors import UserError

Result = TypeVar("Result")
RETRIES = 3  # of an item whose worker was killed
STARTS = 3  # of a local cluster: Ray gives up after half a minute, which a busy machine may need
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
MOST_WAITING = 1000  # items that a cluster of unknown size is given at once
COLOURS = re.compile("\x1b\\[[0-9;]*m")
KEPT = 2  # shared things that a worker keeps: items come ordered by them


@dataclass(frozen=True)
class Cluster:
    """Where items are worked on: `workers` processes here, or a running Ray cluster at `address`.

    ``address="auto"`` is the cluster that this machine belongs to. With both, at most `workers` items are
    worked on at once. On a cluster every machine needs the same version of bayes_clip, and model programs and
    pictures under the same paths.

    Raises:
        UserError: fewer than one worker, or an empty address.
    """

    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is None and self.address is None:
            raise UserError("a cluster needs --workers N or --ray-address ADDRESS")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers}: must be at least 1")
        if self.address is not None and not self.address.strip():
            raise UserError("--ray-address is empty; give host:port, or auto")

    @property
    def threads(self) -> int:
        """Of each worker: OMP_NUM_THREADS where it is set, else this machine's shared out; elsewhere 1."""
        asked = os.environ.get("OMP_NUM_THREADS", "")
        if asked.isdigit() and int(asked) > 0:
            return int(asked)
        return 1 if self.address is not None else max(1, torch.get_num_threads() // (self.workers or 1))


@dataclass(frozen=True)
class _Refused:
    """A UserError of a worker, or any other error with its traceback."""

    message: str
    trace: str | None = None


def check_ray() -> None:
    """Refuse to go on without ray: for before any work.

    Raises:
        UserError: it is not installed.
    """
    _ray()


def spread(
    cluster: Cluster,
    work: Callable[[Any, Any], Result],
    shared: Sequence[Any],
    items: Iterable[tuple[int, Any]],
    device: str = "cpu",
) -> Generator[tuple[int, Result | UserError], None, None]:
    """``work(shared[i], item)`` for every (i, item), by number of the item as each one ends.

    A UserError that `work` raises is the result of its item. Each worker has `Cluster.threads` threads, and
    on `device` cuda a GPU, or a part of one where a local cluster has more workers than GPUs.

    Raises:
        UserError: ray is missing, no cluster answers, a numbered device, or an item whose workers died.
        RuntimeError: any other error of `work`, with the worker's traceback as a note.
    """
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device {device}: a worker sees one device of its kind; use --device cpu or cuda")
    with running(cluster) as ray:
        threads, place = cluster.threads, os.getcwd()
        remote = ray.remote(_worked).options(
            num_cpus=1 if cluster.address is None else threads,
            num_gpus=_gpus(cluster, device),
            max_retries=RETRIES,
        )
        stored = [ray.put(value) for value in shared]
        most = cluster.workers or MOST_WAITING
        waiting: dict[Any, int] = {}
        todo = iter(enumerate(items))
        try:
            while True:
                while len(waiting) < most and (following := next(todo, None)) is not None:
                    number, (index, item) = following
                    waiting[remote.remote(work, [stored[index]], item, threads, place)] = number
                if not waiting:
                    return
                (ended,), _ = ray.wait(list(waiting), num_returns=1)
                yield waiting.pop(ended), _fetched(ray, ended, cluster)
        finally:
            for left in waiting:
                ray.cancel(left, force=True)


@contextmanager
def running(cluster: Cluster) -> Iterator[ModuleType]:
    """Ray for the length of the block; one that this process has started already is used and left running.

    Starting takes seconds: put a block around several comparisons, and they share it.

    Raises:
        UserError: ray is missing, or no cluster answers.
    """
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    _start(ray, cluster)
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise UserError(
            '--workers and --ray-address need Ray, which is not installed: pip install "bayes-clip[ray]"'
        ) from None
    return ray


def _start(ray: ModuleType, cluster: Cluster) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is not None:
        try:
            _knock(cluster.address)
            ray.init(address=cluster.address, **quiet)
        except Exception as error:
            raise UserError(
                f"--ray-address {cluster.address}: no Ray cluster answers there ({_in_short(error)}); "
                "start one with: ray start --head"
            ) from error
        return
    for last in range(STARTS - 1, -1, -1):
        try:
            # address: else a RAY_ADDRESS in the environment would be joined
            ray.init(address="local", num_cpus=cluster.workers, include_dashboard=False, **quiet)
            return
        except Exception as error:
            ray.shutdown()
            if not last:
                raise UserError(
                    f"--workers {cluster.workers}: Ray did not start ({_in_short(error)}); try again when "
                    "the machine is less busy, or leave --workers out"
                ) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at host:port: Ray itself tries for minutes, aloud."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _gpus(cluster: Cluster, device: str) -> float:
    if device == "cpu":
        return 0
    if cluster.address is not None:
        return 1
    return min(1.0, torch.cuda.device_count() / (cluster.workers or 1))


def _worked(work: Callable[[Any, Any], Any], stored: list[Any], item: Any, threads: int, place: str) -> Any:
    """Runs in a worker. `stored` holds a reference: Ray would fetch a bare one anew for each item."""
    torch.set_num_threads(threads)
    try:
        if os.getcwd() != place and os.path.isdir(place):
            os.chdir(place)  # model programs are named by path
        return work(_kept(stored[0]), item)
    except UserError as error:
        return _Refused(str(error))
    except Exception as error:
        return _Refused(f"{type(error).__name__}: {error}", traceback.format_exc())


@lru_cache(KEPT)
def _kept(reference: Any) -> Any:
    return _ray().get(reference)


def _fetched(ray: ModuleType, reference: Any, cluster: Cluster) -> Any:
    try:
        result = ray.get(reference)
    except ray.exceptions.RayError as error:
        where = (
            f"--workers {cluster.workers}" if cluster.address is None else f"--ray-address {cluster.address}"
        )
        raise UserError(
            f"{where}: a worker could not do its part, also when tried again ({_in_short(error)}); if "
            "memory is short, use fewer workers; on a cluster, install the same bayes_clip everywhere"
        ) from error
    if not isinstance(result, _Refused):
        return result
    if result.trace is None:
        return UserError(result.message)
    fault = RuntimeError(f"in a worker: {result.message}")
    fault.add_note(result.trace)
    raise fault


def _in_short(error: Exception) -> str:
    """One line of an error: the last of a traceback (of a worker), else the first."""
    lines = [line.strip() for line in COLOURS.sub("", str(error)).splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    return f"{type(error).__name__}: {lines[0] if lines else ''}".rstrip(": ").rstrip(".")
