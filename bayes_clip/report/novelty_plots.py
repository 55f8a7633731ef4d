"""Figures of the novelty score, on what the model was made for and on what it was not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bayes_clip.evaluation.metrics import auroc, fpr_at_95_tpr
from bayes_clip.report.style import (
    LINE_STYLES,
    MUTED,
    OUTSIDE,
    colour,
    house_style,
    legend_above,
    panel_title,
    panels,
)

NUM_BINS = 40
MOST_POINTS = 400  # of a drawn curve


def novelty_histograms(inside: Mapping[str, np.ndarray], outside: Mapping[str, np.ndarray]) -> Figure:
    """One panel per label: densities of the score of the (M,) inside and the (K,) outside rows.

    The axis spans 99 % of the scores; the few beyond are counted in the outermost bins.
    """
    with house_style():
        figure, stacks = panels(len(inside), (3.1, 2.5))
        for label, (axes,) in zip(inside, stacks, strict=True):
            edges = _edges(np.concatenate([inside[label], outside[label]]))
            groups = (("test", inside[label], colour(label)), ("outside", outside[label], OUTSIDE))
            for name, scores, shade in groups:
                sns.histplot(
                    x=np.clip(scores, edges[0], edges[-1]),
                    bins=edges.tolist(),
                    stat="density",
                    element="step",
                    color=shade,
                    alpha=0.35,
                    hatch="///" if name == "outside" else None,
                    label=name,
                    ax=axes,
                )
            axes.set(xlabel="novelty score", ylabel="density", yticks=[])
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.grid(False, axis="y")
            panel_title(axes, label, f"AUROC {auroc(inside[label], outside[label]):.3f}")
        legend_above(figure, stacks[0][0])
    return figure


def novelty_roc(inside: Mapping[str, np.ndarray], outside: Mapping[str, np.ndarray]) -> Figure:
    """Share of the outside rows kept out against the share of test rows kept out with them, a line per label.

    A dot on each line is the threshold that lets 95 % of the test rows in. Rows of equal score are kept out
    together. A line's area is its AUROC.
    """
    with house_style():
        figure = Figure(figsize=(4.6, 4.3), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.4, label="guessing: 0.5")
        for index, label in enumerate(inside):
            false_alarms, found = roc(inside[label], outside[label])
            keep = np.unique(np.linspace(0, len(found) - 1, MOST_POINTS).round().astype(int))
            axes.plot(
                false_alarms[keep],
                found[keep],
                color=colour(label),
                linestyle=LINE_STYLES[index % len(LINE_STYLES)],
                label=f"{label}: {auroc(inside[label], outside[label]):.3f}",
            )
            at_95 = 1 - fpr_at_95_tpr(inside[label], outside[label])
            axes.plot([0.05], [at_95], color=colour(label), marker="o", markersize=5, linestyle="none")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.set(xlabel="test images kept out (false alarms)", ylabel="outside images kept out")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="lower right")
    return figure


def roc(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of inside and of outside rows with a score of at least each threshold; both from 0 to 1."""
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    shares = [
        1 - np.searchsorted(np.sort(scores), thresholds, side="left") / len(scores)
        for scores in (inside, outside)
    ]
    return np.append(0.0, shares[0]), np.append(0.0, shares[1])


def _edges(scores: np.ndarray) -> np.ndarray:
    """Equal-width bins over the central 99 % of the finite scores."""
    low, high = np.quantile(scores[np.isfinite(scores)], [0.005, 0.995])
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, NUM_BINS + 1)
