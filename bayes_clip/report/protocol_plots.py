"""The standard figure of few-shot papers: accuracy, NLL and ECE against labelled images per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_clip.evaluation.paired import METRICS, SEEDS, named
from bayes_clip.evaluation.results import Cell
from bayes_clip.report.engine_plots import SHOWN
from bayes_clip.report.style import INK, house_style

Row = Mapping[str, Cell]

PANEL = (3.3, 3.0)  # inches
LEGEND_LINE = 0.2  # inches a line of it takes
LEGEND_COLUMNS = 3
SPREAD = 0.3  # of all lines at one number of shots, in doublings
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h", "*")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def protocol_figure(summary: Sequence[Row]) -> Figure:
    """A panel per metric and a line per method: means over seeds, bars their t intervals.

    `summary` are rows of `paired.summary_rows` of one part and one data set (or the mean of all). Where there
    are several models, colour and marker tell the model and the line's style the engine, else they tell the
    engine. Seaborn's palette for colour-blind readers. Lines are moved apart a little, `dodged`, so that
    their bars can be told apart.
    """
    rows = [row for row in summary if row["over"] == SEEDS]
    metrics = [name for name in METRICS if any(row["metric"] == name for row in rows)]
    methods = list(dict.fromkeys((str(row["model"]), str(row["engine"])) for row in rows))
    looks = _looks(methods)
    alone = len({model for model, _ in methods}) == 1
    label = {method: method[1] if alone else named(method) for method in methods}
    deep = LEGEND_LINE * -(-len(methods) // LEGEND_COLUMNS)
    with house_style():
        size = (PANEL[0] * max(len(metrics), 2), PANEL[1] + deep)
        figure = Figure(figsize=size, layout="constrained")
        for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
            for place, method in enumerate(methods):
                points = [
                    row for row in rows if row["metric"] == metric and (row["model"], row["engine"]) == method
                ]
                shift = dodged(place, len(methods))
                _draw_line(axes, points, looks[method], label[method], shift)
            _label(axes, metric, sorted({int(row["shots"]) for row in rows}))
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=LEGEND_COLUMNS)
        sns.despine(figure)
    return figure


def dodged(place: int, count: int) -> float:
    """What the shots of the line at `place` among `count` are multiplied by."""
    return float(2 ** (SPREAD * (place - (count - 1) / 2) / max(count, 1)))


def _looks(methods: Sequence[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    models = list(dict.fromkeys(model for model, _ in methods))
    engines = list(dict.fromkeys(engine for _, engine in methods))
    palette = sns.color_palette("colorblind")
    looks: dict[tuple[str, str], dict[str, Any]] = {}
    for model, engine in methods:
        first, second = models.index(model), engines.index(engine)
        if len(models) == 1:
            first, second = second, 0
        looks[model, engine] = {
            "color": palette[first % len(palette)],
            "marker": MARKERS[first % len(MARKERS)],
            "linestyle": LINES[second % len(LINES)],
        }
    return looks


def _draw_line(axes: Axes, points: Sequence[Row], look: Mapping[str, Any], label: str, shift: float) -> None:
    """Means, and bars where there are intervals; one entry in the legend."""
    points = sorted(points, key=lambda row: int(row["shots"]))
    places, means = [shift * int(row["shots"]) for row in points], [float(row["mean"]) for row in points]
    axes.plot(places, means, markersize=5, label=label, **look)
    for place, row in zip(places, points, strict=True):
        if row["low"] != "":
            ends = [float(row["low"]), float(row["high"])]
            axes.plot([place, place], ends, color=look["color"], linewidth=1.0, alpha=0.7)


def _label(axes: Axes, metric: str, shots: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(shots, [str(count) for count in shots])
    axes.minorticks_off()
    axes.set_xlabel("labelled images per class")
    axes.set_title(dict(SHOWN)[metric], color=INK)
