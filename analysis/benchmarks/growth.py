"""How the seconds of our fit, prediction and blocked filter grow with N, C, D and the batch.

One number is varied at a time, by doublings; the slope is that of a line through the logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

import bayes_clip as bc
from analysis.benchmarks.blocked_filter import blocked, problem
from analysis.benchmarks.contest import timed
from analysis.benchmarks.features import clip_like_task
from bayes_clip.progress import track

PRIOR_VARIANCE = 1e-3
TIMES = 3
COLUMNS = ("what", "varied", "value", "seconds", "slope")


@dataclass(frozen=True)
class Place:
    """Where something is timed: C classes, D features, N rows, batch rows."""

    classes: int
    features: int
    rows: int
    batch: int


@dataclass(frozen=True)
class Curve:
    """Seconds of something against one number."""

    what: str
    varied: str
    values: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def slope(self) -> float:
        """The power that seconds grow with: least squares in logarithms."""
        return float(np.polyfit(np.log(self.values), np.log(self.seconds), 1)[0])


MIDDLE = Place(classes=40, features=256, rows=240, batch=40)
SWEEPS: dict[str, tuple[int, ...]] = {
    "rows": (120, 240, 480, 960),
    "classes": (20, 40, 80, 160),
    "features": (64, 128, 256, 512),
    "batch": (16, 32, 64, 128),
}
TOY = Place(classes=3, features=8, rows=12, batch=4)
TOY_SWEEPS: dict[str, tuple[int, ...]] = {"rows": (12, 24), "classes": (3, 6)}


def curves(device: torch.device, middle: Place, sweeps: dict[str, tuple[int, ...]]) -> Iterator[Curve]:
    """Every curve; prediction knows no batch."""
    for varied, values in track(sweeps.items(), "Growth", len(sweeps)):
        places = [replace(middle, **{varied: value}) for value in values]
        for what, prepared in WORKS.items():
            if what == "predict" and varied == "batch":
                continue
            spent = tuple(_seconds(prepared(place, device), device) for place in places)
            yield Curve(what, varied, values, spent)


def lines(found: Sequence[Curve]) -> list[list[str]]:
    """The curves as lines of growth.csv."""
    return [
        [curve.what, curve.varied, str(value), f"{seconds:.6g}", f"{curve.slope:.3f}"]
        for curve in found
        for value, seconds in zip(curve.values, curve.seconds, strict=True)
    ]


def _fit(place: Place, device: torch.device) -> Callable[[], object]:
    """A fit of the default engine at a given prior variance: no search."""
    task = clip_like_task(place.classes, place.features, place.rows, place.classes)
    settings = bc.FitSettings(prior_variance=PRIOR_VARIANCE, batch_size=place.batch, device=str(device))
    return lambda: bc.fit(task, settings)


def _predict(place: Place, device: torch.device) -> Callable[[], object]:
    """Probabilities, doubt and novelty of N rows."""
    task = clip_like_task(place.classes, place.features, place.classes, place.rows)
    settings = bc.FitSettings(prior_variance=PRIOR_VARIANCE, predictive="closed_form", device=str(device))
    posterior = bc.fit(task, settings).posterior
    return lambda: posterior.predict(task.query_features)


def _filter(place: Place, device: torch.device) -> Callable[[], object]:
    """The blocked exact filter over N rows."""
    task = clip_like_task(place.classes, place.features, place.rows, place.classes)
    return blocked(*problem(task, device), place.batch)


WORKS: dict[str, Callable[[Place, torch.device], Callable[[], object]]] = {
    "fit": _fit,
    "predict": _predict,
    "blocked filter": _filter,
}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median of a few runs, of which the first is the slowest: no other warm-up is needed."""
    return median(timed(work, device)[0] for _ in range(TIMES))
