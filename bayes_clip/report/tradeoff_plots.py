"""Figure of the trade between good probabilities and time: engines as a Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_clip.report.style import LEAST_SECONDS, MUTED, colour, decades, house_style, marker

MOST_NAMED = 6  # more arms are numbered, and named at the side
SHOWN = (("nll", "NLL, nats"), ("ece", "ECE"))


def tradeoff(points: Mapping[str, Mapping[str, float]]) -> Figure:
    """NLL and ECE against seconds to fit: down and to the left is better.

    `points`: label -> its means {"nll", "ece", "fit_seconds"}. The line is the front of each panel. Filled
    markers are arms that no other beats in all three numbers at once; hollow ones are beaten.
    """
    labels = list(points)
    best = dict(zip(labels, on_front(_rows(points, "nll", "ece", "fit_seconds")), strict=True))
    with house_style():
        figure = Figure(figsize=(8.6 if len(labels) <= MOST_NAMED else 10.2, 3.6), layout="constrained")
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
                    label=f"{labels.index(label) + 1}  {label}",
                )
            _name(axes, labels, rows)
            decades(axes, rows[:, 1].tolist())
            axes.margins(y=0.14)
            axes.set(xlabel="seconds to fit", ylabel=title)
            axes.set_title(f"{title.split(',')[0]}: down and left is better")
        if len(labels) > MOST_NAMED:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
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


def _name(axes: Axes, labels: Sequence[str], rows: np.ndarray) -> None:
    """Names, or numbers, beside the markers; above and below in turn in the order of the seconds."""
    for turn, index in enumerate(np.argsort(rows[:, 1], kind="stable")):
        value, seconds = rows[index]
        axes.annotate(
            labels[index] if len(labels) <= MOST_NAMED else str(index + 1),
            (seconds, value),
            xytext=(0, 8 if turn % 2 == 0 else -8),
            textcoords="offset points",
            ha="center",
            va="bottom" if turn % 2 == 0 else "top",
            fontsize=8,
        )
