"""Figure of what changed with each label: the probabilities of some pictures along a run of updates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_clip.report.style import (
    ENGINE_COLOURS,
    LINE_STYLES,
    MUTED,
    OUTSIDE,
    house_style,
    panels,
)

MOST_CLASSES = 4  # drawn by name in a panel; the others are one thin line each
SHADES = (ENGINE_COLOURS["ekf"], OUTSIDE, ENGINE_COLOURS["vi"], ENGINE_COLOURS["laplace"])
MOST_TICKS = 24  # labels named along the axis; more would not be readable


def label_changes(
    probabilities: np.ndarray,
    class_names: Sequence[str],
    learned: Sequence[int],
    truths: Sequence[int] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """A panel per picture: the probability of each class before any label and after each one.

    `probabilities` (T + 1, W, C) of W pictures; `learned` (T,) the class of each label in the order in which
    they came, written along the axis; `truths` (W,) are drawn thick, as are dots where their class is taught.

    Raises:
        ValueError: shapes that do not fit one another.
    """
    steps, watched, classes = probabilities.shape
    if len(learned) != steps - 1 or len(class_names) != classes:
        raise ValueError(
            f"probabilities {probabilities.shape} for {len(learned)} labels and {len(class_names)} classes"
        )
    at = np.arange(steps)
    with house_style():
        figure, stacks = panels(watched, (6.4, 2.1), most_columns=1)
        for picture, (axes,) in enumerate(stacks):
            truth = None if truths is None else int(truths[picture])
            own = probabilities[:, picture]
            named = np.argsort(-own.max(0), kind="stable")[:MOST_CLASSES].tolist()
            if truth is not None and truth not in named:
                named[-1] = truth
            for k in sorted(set(range(classes)) - set(named)):
                axes.plot(at, own[:, k], color=MUTED, linewidth=0.4)
            for order, k in enumerate(named):
                axes.plot(
                    at,
                    own[:, k],
                    color=SHADES[order],
                    linestyle=LINE_STYLES[order],
                    linewidth=2.8 if k == truth else 1.4,
                    label=f"{class_names[k]} (true)" if k == truth else class_names[k],
                )
                taught = [step + 1 for step, label in enumerate(learned) if label == k]
                axes.plot(
                    taught, own[taught, k], color=SHADES[order], marker="o", markersize=4, linestyle="none"
                )
            axes.set(ylim=(-0.02, 1.02), ylabel="probability")
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
            axes.set_title("" if titles is None else titles[picture])
        last = stacks[-1][0]
        last.set_xlabel(
            "labels learned, one after another" + (": their classes" if len(learned) <= MOST_TICKS else "")
        )
        if len(learned) <= MOST_TICKS:
            ticks = ["none", *(class_names[k] for k in learned)]
            for (axes,) in stacks:
                axes.set_xticks(at, ticks, rotation=90)
        else:
            last.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
