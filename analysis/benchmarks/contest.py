"""What a benchmark case is, and how it is timed: alternating runs in one process, and medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Generic, TypeVar

import torch

from bayes_clip.rates import Rates, measure

COLUMNS = (
    "case", "device", "ours_seconds", "peer", "peer_seconds", "speedup", "limit_seconds", "fraction_of_limit",
    "agreement",
)  # fmt: skip
Result = TypeVar("Result")
MOST_SECONDS = 60.0  # of a contest's rounds, after which no further one begins


@dataclass(frozen=True)
class Size:
    """C classes, D features, N rows, and whatever else a case depends on."""

    classes: int
    features: int
    rows: int
    more: str = ""

    def __str__(self) -> str:
        return f"C{self.classes},D{self.features},N{self.rows}" + (f",{self.more}" if self.more else "")


@dataclass(frozen=True)
class Work:
    """The least that a computation does: operations, and bytes read and written."""

    flops: float
    bytes_moved: float


@dataclass(frozen=True)
class Partly(Generic[Result]):
    """The result of a run that did a part of the work, and the seconds that the rest would have taken."""

    result: Result
    seconds_of_the_rest: float


@dataclass(frozen=True)
class Contest:
    """Our way and the peers' way of doing one thing.

    A run is a function of nothing; what it returns (or `Partly` holds) is handed to `agreement`, whose number
    passes where it is at most `tolerance`.
    """

    case: str  # its name with its size, as fit@C47,D512,N752
    ours: Callable[[], Any]
    peers: dict[str, Callable[[], Any]]  # name with backend and version -> run
    agreement: Callable[[Any, Any], float]  # results of ours and of the peer -> the number compared
    tolerance: float
    work: Work  # of ours
    rounds: int = 5  # at most: fewer where they take more than a minute together
    repeats: int = (
        1  # runs of ours and of the peer in a round, for what takes milliseconds; seconds are of one
    )
    parts: int = 1  # equal steps of a run; seconds are of one
    warm_up: Callable[[], Any] | None = (
        None  # instead of a first round that does not count, where runs are long
    )
    dtype: torch.dtype = torch.float32  # of the arithmetic, hence of the rates


@dataclass(frozen=True)
class Row:
    """A line of results.csv, and whether its answers agree."""

    case: str
    device: str
    ours_seconds: float
    peer: str
    peer_seconds: float
    speedup: float
    limit_seconds: float
    fraction_of_limit: float
    agreement: float
    tolerance: float = field(metadata={"in_csv": False})

    @property
    def agrees(self) -> bool:
        """Whether the number compared is within tolerance; NaN is not."""
        return self.agreement <= self.tolerance


def run(contest: Contest, device: torch.device, device_name: str) -> Iterator[Row]:
    """Time a contest and check its answers: a row for each peer.

    The machine's rates are measured before and after, and averaged: other work on it then slows both sides of
    `fraction_of_limit` alike.
    """
    before = measure(device, contest.dtype)
    arms = {"": contest.ours, **contest.peers}
    if contest.warm_up is not None:
        contest.warm_up()
    else:
        for arm in arms.values():
            arm()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    results: dict[str, Any] = {}
    start = time.perf_counter()
    for turn in range(contest.rounds):
        if turn > 0 and time.perf_counter() - start > MOST_SECONDS:
            break
        for name, arm in arms.items():
            spent, results[name] = timed(arm, device, contest.repeats)
            seconds[name].append(spent / contest.parts)
    after = measure(device, contest.dtype)
    limit = (_limit(contest.work, before) + _limit(contest.work, after)) / 2
    ours = median(seconds[""])
    for name in contest.peers:
        theirs = median(seconds[name])
        agreement = float(contest.agreement(results[""], results[name]))
        yield Row(
            contest.case, device_name, ours, name, theirs, theirs / ours, limit, limit / ours, agreement,
            contest.tolerance,
        )  # fmt: skip


def timed(work: Callable[[], Any], device: torch.device, repeats: int = 1) -> tuple[float, Any]:
    """Seconds of one of `repeats` runs, the device's own work included, and the last result."""
    _wait(device)
    start, rest, result = time.perf_counter(), 0.0, None
    for _ in range(repeats):
        result = work()
        if isinstance(result, Partly):
            rest += result.seconds_of_the_rest
            result = result.result
    _wait(device)
    return (time.perf_counter() - start + rest) / repeats, result


def fastest(ways: dict[str, Callable[[], Any]], device: torch.device, tries: int = 3) -> str:
    """The name of the way that takes the least time: the best of `tries` after one that does not count.

    Where runs are long, `tries` is 0 and the first run counts. A way whose first run takes ten times as long
    as the best so far is not tried again.
    """
    best: dict[str, float] = {}
    for name, way in ways.items():
        first = timed(way, device)[0]
        if best and first > 10 * min(best.values()):
            continue
        best[name] = min((timed(way, device)[0] for _ in range(tries)), default=first)
    return min(best, key=lambda name: best[name])


def _limit(work: Work, rates: Rates) -> float:
    return rates.seconds(work.flops, work.bytes_moved)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
