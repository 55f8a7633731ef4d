"""Figure of the trade between good probabilities and time: engines as a Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_clip.report.style import LEAST_SECONDS, MUTED, colour, decades, house_style, marker

MOST_NAMED = 8  # of more arms only those on the front are named
SHOWN = (("nll", "NLL, nats"), ("ece", "ECE"))


def tradeoff(points: Mapping[str, Mapping[str, float]]) -> Figure:
    """NLL and ECE against seconds to fit: down and to the left is better.

    `points`: label -> its means {"nll", "ece", "fit_seconds"}. The line is the front of each panel. Filled
    markers are arms that no other beats in all three numbers at once; hollow ones are beaten.
    """
    labels = list(points)
    best = dict(zip(labels, on_front(_rows(points, "nll", "ece", "fit_seconds")), strict=True))
    with house_style():
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        for axes, (metric, title) in zip(figure.subplots(1, 2), SHOWN, strict=True):
            rows = _rows(points, metric, "fit_seconds")
            front = rows[on_front(rows)]
            front = front[np.lexsort((front[:, 0], front[:, 1]))]
            axes.plot(
                front[:, 1], front[:, 0], color=MUTED, linestyle="--", linewidth=1.0, drawstyle="steps-post"
            )
            for label, (value, seconds) in zip(labels, rows, strict=True):
                axes.plot(
                    [seconds],
                    [value],
                    color=colour(label),
                    marker=marker(label),
                    markersize=8,
                    markerfacecolor=colour(label) if best[label] else "white",
                    linestyle="none",
                )
            _name(axes, labels, rows, [best[label] or len(labels) <= MOST_NAMED for label in labels])
            decades(axes, rows[:, 1].tolist())
            axes.margins(y=0.14)
            axes.set(xlabel="seconds to fit", ylabel=title)
            axes.set_title(f"{title.split(',')[0]}: down and left is better")
    return figure


def on_front(values: np.ndarray) -> np.ndarray:
    """Which of the (N, K) rows of costs no other row beats: none as good in all and better in one; (N,)."""
    no_worse = (values[:, None] <= values[None]).all(-1)
    better = (values[:, None] < values[None]).any(-1)
    return np.asarray(~(no_worse & better).any(0))


def beaten_by(points: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Label -> the labels as good in NLL, ECE and seconds and better in one; only those that are beaten."""
    rows = dict(zip(points, _rows(points, "nll", "ece", "fit_seconds"), strict=True))
    found = {
        label: [other for other, row in rows.items() if (row <= own).all() and (row < own).any()]
        for label, own in rows.items()
    }
    return {label: winners for label, winners in found.items() if winners}


def _rows(points: Mapping[str, Mapping[str, float]], *names: str) -> np.ndarray:
    """The named numbers of every label, (N, names)."""
    values = [[float(point[name]) for name in names] for point in points.values()]
    array = np.array(values)
    seconds = [index for index, name in enumerate(names) if name == "fit_seconds"]
    array[:, seconds] = np.maximum(array[:, seconds], LEAST_SECONDS)
    return array


def _name(axes: Axes, labels: Sequence[str], rows: np.ndarray, wanted: Sequence[bool]) -> None:
    """Names beside the markers, above and below in turn where neighbours are close in rank."""
    order = np.argsort(rows[:, 1], kind="stable")
    for turn, index in enumerate(order):
        if not wanted[index]:
            continue
        value, seconds = rows[index]
        axes.annotate(
            labels[index],
            (seconds, value),
            xytext=(0, 8 if turn % 2 == 0 else -8),
            textcoords="offset points",
            ha="center",
            va="bottom" if turn % 2 == 0 else "top",
            fontsize=8,
        )
