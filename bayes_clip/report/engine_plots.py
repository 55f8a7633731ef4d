"""Figures that set the engines side by side: one dot per seed, and accuracy against shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_clip.evaluation.results import Cell
from bayes_clip.report.style import (
    INK,
    LEAST_SECONDS,
    LINE_STYLES,
    colour,
    decades,
    engine_of,
    house_style,
    legend_above,
    marker,
)

# Column of metrics.csv, its heading.
SHOWN = (
    ("accuracy", "Accuracy\nhigher is better"),
    ("nll", "NLL, nats\nlower is better"),
    ("ece", "ECE\nlower is better"),
    ("ood_auroc", "OOD AUROC\nhigher is better"),
    ("fit_seconds", "Seconds to fit\nlower is better"),
)


def engine_comparison(values: Mapping[str, Mapping[str, Sequence[Cell]]], labels: Sequence[str]) -> Figure:
    """Dot plots: a panel per metric, a row per label, a small dot per seed, a large one for their mean.

    `values` is metric -> label -> the value of each seed; empty strings and metrics without any are left out.
    """
    shown = [(name, title) for name, title in SHOWN if any(_numbers(values, name, label) for label in labels)]
    with house_style():
        figure = Figure(figsize=(0.9 + 1.75 * len(shown), 0.85 + 0.36 * len(labels)), layout="constrained")
        columns = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for axes, (name, title) in zip(columns, shown, strict=True):
            for height, label in enumerate(labels):
                numbers = _numbers(values, name, label)
                if not numbers:
                    continue
                style = {"color": colour(label), "marker": marker(label), "linestyle": "none"}
                if len(numbers) > 1:
                    axes.plot(numbers, [height] * len(numbers), markersize=4, alpha=0.45, **style)
                axes.plot([np.mean(numbers)], [height], markersize=8, markeredgecolor="white", **style)
            axes.set_title(title, fontsize=8.5)
            axes.tick_params(left=False)
            if name == "fit_seconds":
                decades(axes, [value for label in labels for value in _numbers(values, name, label)])
            else:
                axes.xaxis.set_major_locator(MaxNLocator(3))
                axes.margins(x=0.12)
        columns[0].set_yticks(range(len(labels)), labels)
        columns[0].set_ylim(len(labels) - 0.5, -0.5)
        sns.despine(figure, left=True)
    return figure


def shots_curves(means: Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]]) -> Figure:
    """A panel per metric: mean over seeds and its standard error against labelled images per class.

    `means` is metric -> label -> shots -> (mean, standard error or 0).
    """
    titles = dict(SHOWN)
    with house_style():
        figure = Figure(figsize=(3.1 * len(means), 3.0), layout="constrained")
        columns = figure.subplots(1, len(means), squeeze=False)[0]
        for axes, (name, curves) in zip(columns, means.items(), strict=True):
            for label, points in curves.items():
                shots = sorted(points)
                twins = [other for other in curves if engine_of(other) == engine_of(label)]
                axes.errorbar(
                    shots,
                    [points[k][0] for k in shots],
                    [points[k][1] for k in shots],
                    color=colour(label),
                    marker=marker(label),
                    linestyle=LINE_STYLES[twins.index(label) % len(LINE_STYLES)],
                    markersize=5,
                    label=label,
                )
            ticks = sorted({k for points in curves.values() for k in points})
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [str(k) for k in ticks])
            axes.set_xlabel("labelled images per class")
            axes.set_title(titles[name], color=INK)
        legend_above(figure, columns[0])
    return figure


def _numbers(values: Mapping[str, Mapping[str, Sequence[Cell]]], name: str, label: str) -> list[float]:
    """The numbers among a label's values: some engines have no novelty score, or no variance to report."""
    numbers = [float(value) for value in values.get(name, {}).get(label, ()) if not isinstance(value, str)]
    return [max(value, LEAST_SECONDS) for value in numbers] if name == "fit_seconds" else numbers
