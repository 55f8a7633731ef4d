"""The figures: speedups and fractions of the limit, and how seconds grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from analysis.benchmarks.contest import Row
from analysis.benchmarks.growth import Curve
from analysis.benchmarks.tables import times
from bayes_clip.report.style import INK, MUTED, OUTSIDE, house_style, legend_above, panels, plain_numbers
from bayes_clip.report.svg import svg_text
from bayes_clip.storage.files import write_whole, written_whole

OURS = "#0072b2"
SLOWER = OUTSIDE
LOOKS = {"fit": ("#0072b2", "o"), "predict": ("#e69f00", "s"), "blocked filter": ("#009e73", "D")}
TITLES = {"rows": "rows N", "classes": "classes C", "features": "features D", "batch": "rows of a batch"}


def speed(rows: Sequence[Row]) -> Figure:
    """Left: how many times faster than each peer. Right: which part of the machine's limit ours reaches."""
    with house_style():
        figure = Figure(figsize=(9.2, 1.1 + 0.34 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.6, 1))
        heights = range(len(rows))
        for height, row in zip(heights, rows, strict=True):
            faster = row.speedup >= 1
            shade = OURS if faster else SLOWER
            left.plot([1, row.speedup], [height] * 2, color=shade, linewidth=1.4)
            left.plot([row.speedup], [height], color=shade, marker="o" if faster else "X", markersize=7)
            left.annotate(
                f"{times(row.speedup)}×", (row.speedup, height), (7 if faster else -7, 0),
                textcoords="offset points", ha="left" if faster else "right", va="center", fontsize=8,
            )  # fmt: skip
            right.plot([row.fraction_of_limit], [height], color=INK, marker="o", markersize=6)
            right.plot([0, row.fraction_of_limit], [height] * 2, color=MUTED, linewidth=1.2)
        _speed_axes(left, right, rows)
        sns.despine(figure, left=True)
    return figure


def _speed_axes(left: Axes, right: Axes, rows: Sequence[Row]) -> None:
    speedups = [row.speedup for row in rows]
    left.set_xscale("log")
    left.set_xlim(min(0.3, min(speedups) / 30), max(10.0, max(speedups) * 12))
    left.axvline(1, color=INK, linewidth=0.8)
    left.set_yticks(range(len(rows)), [f"{row.case}\n{row.peer}" for row in rows], fontsize=7)
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.tick_params(left=False)
    left.set_title("Times as fast as the peer")
    right.tick_params(left=False)
    right.set_xlim(0, max(1.05, 1.05 * max(row.fraction_of_limit for row in rows)))
    right.set_title("Part of the machine's limit")


def growth(curves: Sequence[Curve]) -> Figure:
    """A panel for each number that was varied, seconds against it, with the slope of each curve."""
    varied = list(dict.fromkeys(curve.varied for curve in curves))
    with house_style():
        figure, stacks = panels(len(varied), (3.0, 2.9), most_columns=4)
        for name, stack in zip(varied, stacks, strict=True):
            axes = stack[0]
            axes.set_xscale("log")
            axes.set_yscale("log")
            for curve in (curve for curve in curves if curve.varied == name):
                shade, mark = LOOKS[curve.what]
                axes.plot(
                    curve.values, curve.seconds, color=shade, marker=mark, markersize=5, label=curve.what
                )
                axes.annotate(
                    f"{curve.slope:.2f}", (curve.values[-1], curve.seconds[-1]), (6, 0),
                    textcoords="offset points", va="center", fontsize=8, color=shade,
                )  # fmt: skip
            values = next(curve.values for curve in curves if curve.varied == name)
            axes.xaxis.set_major_locator(FixedLocator(values))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(values, [str(value) for value in values])
            axes.set_xlim(values[0] / 1.2, values[-1] * 1.6)
            axes.set_xlabel(TITLES[name])
            plain_numbers(axes)
        stacks[0][0].set_ylabel("seconds; numbers are slopes")
        legend_above(figure, stacks[0][0])
    return figure


def write(figure: Figure, stem: Path) -> None:
    """The figure as .png and .svg, each whole or not at all."""
    write_whole(stem.with_suffix(".svg"), svg_text(figure).encode())
    with written_whole(stem.with_suffix(".png")) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
