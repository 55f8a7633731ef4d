"""How figures look: colours that colour-blind readers and grey printers can tell apart, type, and grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

SEPARATOR = " · "

INK = "#1c2127"
MUTED = "#6a737d"
GRID = "#dde1e6"
BAND = "#c9d3de"
OUTSIDE = "#d55e00"
RIGHT = "#8fd6bd"
LEAST_SECONDS = 1e-3  # where the axis is logarithmic; less is noise of the clock
SHORT_SPAN = 30.0  # of a logarithmic axis, below which numbers between decades are needed
SHORT_LABEL = 12
LEGEND_WIDTH = 1.75  # inches that an entry may take
LINE_STYLES = ("-", "--", ":", "-.")  # tell arms of one engine apart

# Okabe & Ito (2008), black replaced by grey: zero_shot is the reference, not a contender.
ENGINE_COLOURS = {
    "zero_shot": "#7f868e",
    "sgd": "#8c564b",
    "map": "#e69f00",
    "ekf": "#0072b2",
    "laplace": "#009e73",
    "vi": "#cc79a7",
    "nuts": "#56b4e9",
}
ENGINE_MARKERS = {
    "zero_shot": "X",
    "sgd": "v",
    "map": "s",
    "ekf": "o",
    "laplace": "D",
    "vi": "^",
    "nuts": "P",
}

SETTINGS: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in the name of a class is a dollar sign
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib settings of the project, within the block; figures keep what they were drawn with."""
    with sns.axes_style("ticks"), mpl.rc_context(SETTINGS):
        yield


def colour(label: str) -> str:
    """Colour of an arm, which is that of its engine; grey for an engine that is not known."""
    return ENGINE_COLOURS.get(engine_of(label), MUTED)


def marker(label: str) -> str:
    """Marker of an arm, so that colour is never the only difference."""
    return ENGINE_MARKERS.get(engine_of(label), "o")


def engine_of(label: str) -> str:
    """The engine a label begins with: "ekf" of "ekf · full"."""
    return label.split(SEPARATOR)[0]


def panels(
    count: int, size: tuple[float, float], most_columns: int = 3, ratios: tuple[float, ...] = (1.0,)
) -> tuple[Figure, list[list[Axes]]]:
    """A figure with `count` panels in rows of at most `most_columns`; `size` is that of a panel in inches.

    A panel is a stack of axes with a common x axis, one per height ratio. The figure belongs to no window
    manager: nothing has to be closed.
    """
    wide = 2 if count == 4 and most_columns == 3 else min(most_columns, count)
    high, deep = -(-count // wide), len(ratios)
    figure = Figure(figsize=(size[0] * wide, size[1] * high), layout="constrained")
    grid = figure.subplots(high * deep, wide, squeeze=False, height_ratios=list(ratios) * high)
    stacks = [
        [grid[row * deep + part, column] for part in range(deep)]
        for row in range(high)
        for column in range(wide)
    ]
    for spare in stacks[count:]:
        for axes in spare:
            axes.remove()
    for stack in stacks[:count]:
        for axes in stack[:-1]:
            axes.sharex(stack[-1])
            axes.tick_params(labelbottom=False)
    return figure, stacks[:count]


def legend_above(figure: Figure, axes: Axes) -> None:
    """The legend of one axes, in lines above the whole figure: nowhere does it cover data."""
    handles, labels = axes.get_legend_handles_labels()
    room = max(1, int(figure.get_figwidth() / LEGEND_WIDTH))
    figure.legend(handles, labels, loc="outside upper left", ncols=min(room, len(labels)))


def panel_title(axes: Axes, label: str, words: str) -> None:
    """A label and a number above a panel: in one line where there is room, else smaller in two."""
    short = len(label) <= SHORT_LABEL
    axes.set_title(f"{label}: {words}" if short else f"{label}\n{words}", fontsize=10 if short else 8.5)


def decades(axes: Axes, numbers: Sequence[float]) -> None:
    """A logarithmic axis over whole decades, with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(10 ** np.floor(np.log10(min(numbers))) / 1.3, 10 ** np.ceil(np.log10(max(numbers))) * 1.3)
    axes.xaxis.set_major_locator(LogLocator(numticks=4))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def plain_numbers(axes: Axes) -> None:
    """Plain numbers on every logarithmic axis: matplotlib writes powers in mathtext, which is off here.

    Between decades there are numbers where an axis spans less than one and a half of them.
    """
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() not in ("log", "symlog") or isinstance(axis.get_major_locator(), FixedLocator):
            continue
        low, high = sorted(abs(end) or 1.0 for end in axis.get_view_interval())
        axis.set_major_formatter(_two_digits)
        if axis.get_scale() == "log" and high / low < SHORT_SPAN:
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter(_two_digits)
        else:
            axis.set_minor_formatter(NullFormatter())


def _two_digits(number: float, _place: float) -> str:
    return f"{float(f'{number:.2g}'):g}"
