"""Figure of the novelty score, on what the model was made for and on what it was not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayes_clip.evaluation.metrics import auroc
from bayes_clip.report.style import OUTSIDE, colour, house_style, legend_above, panels

NUM_BINS = 40


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
            axes.set_title(f"{label}: AUROC {auroc(inside[label], outside[label]):.3f}")
        legend_above(figure, stacks[0][0])
    return figure


def _edges(scores: np.ndarray) -> np.ndarray:
    """Equal-width bins over the central 99 % of the finite scores."""
    low, high = np.quantile(scores[np.isfinite(scores)], [0.005, 0.995])
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, NUM_BINS + 1)
