"""Figure of the pictures a model is most and least sure about, with its three largest probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayes_clip.report.style import BAND, MUTED, OUTSIDE, RIGHT, house_style

TOP = 3


def most_and_least_sure(probabilities: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the `count` largest and smallest winning probabilities, most extreme first.

    Ties (many probabilities round to one) are told apart by the entropy, then by the order of the rows.
    """
    safe = np.maximum(probabilities, np.finfo(np.float64).tiny)
    entropy = -(probabilities * np.log(safe)).sum(axis=1)
    order = np.lexsort((entropy, -probabilities.max(axis=1)))
    count = min(count, len(order) // 2) or 1
    return order[:count], order[::-1][:count]


def sure_and_unsure(
    images: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    count: int = 6,
) -> Figure:
    """Two rows of pictures, surest and least sure; under each, its largest probabilities as bars.

    `images` (M, 3, h, w) uint8, `probabilities` (M, C), `labels` (M,). The true class is drawn in green; an
    orange frame says that the answer is wrong.
    """
    rows = most_and_least_sure(probabilities, count)
    with house_style():
        figure = Figure(figsize=(1.55 * len(rows[0]), 5.4), layout="constrained")
        halves = figure.subfigures(2, 1, squeeze=False)[:, 0]
        for half, chosen, title in zip(halves, rows, ("Most sure", "Least sure"), strict=True):
            half.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
            grid = half.subplots(2, len(chosen), squeeze=False, height_ratios=(1.6, 1.0))
            for column, row in enumerate(chosen):
                right = probabilities[row].argmax() == labels[row]
                _draw_picture(grid[0, column], images[row], class_names[labels[row]], bool(right))
                _draw_bars(grid[1, column], probabilities[row], int(labels[row]), class_names)
    return figure


def _draw_picture(axes: Axes, image: np.ndarray, truth: str, right: bool) -> None:
    axes.imshow(np.moveaxis(image, 0, -1), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"is {_short(truth)}", fontsize=8.5, fontweight="normal", loc="center")
    axes.spines[:].set(visible=True, color=MUTED if right else OUTSIDE, linewidth=0.8 if right else 3.0)


def _draw_bars(axes: Axes, probabilities: np.ndarray, truth: int, class_names: Sequence[str]) -> None:
    top = np.argsort(-probabilities, kind="stable")[:TOP]
    heights = range(len(top))
    axes.barh(heights, np.ones(len(top)), color="none", edgecolor=BAND, linewidth=0.6, height=0.74)
    axes.barh(heights, probabilities[top], color=[RIGHT if k == truth else BAND for k in top], height=0.74)
    for height, k in zip(heights, top, strict=True):
        axes.text(0.04, height, _short(class_names[k]), va="center", fontsize=7.5)
        axes.text(0.97, height, f"{probabilities[k]:.2f}", va="center", ha="right", fontsize=7.5)
    axes.set(xlim=(0, 1), ylim=(len(top) - 0.5, -0.5), xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)


def _short(name: str, most: int = 13) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
