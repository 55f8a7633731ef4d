"""Figure of the two doubts against each other: a low probability, and weights that are not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from bayes_clip.evaluation.metrics import auroc
from bayes_clip.report.style import OUTSIDE, colour, house_style, legend_above, panels

MOST_POINTS = 500  # of a panel: more would only make the file large


@dataclass(frozen=True)
class Doubt:
    """What one arm said of M rows; all (M,): winning probability, 1.0 if right, mutual information (nats)."""

    confidence: np.ndarray
    correct: np.ndarray
    epistemic: np.ndarray

    @property
    def finds_errors(self) -> tuple[float, float]:
        """AUROC of wrong against right rows by epistemic doubt, and by low confidence; NaN without either."""
        right = self.correct > 0
        if right.all() or not right.any():
            return float("nan"), float("nan")
        doubts = (self.epistemic, -self.confidence)
        by_epistemic, by_confidence = (auroc(doubt[right], doubt[~right]) for doubt in doubts)
        return by_epistemic, by_confidence


def confidence_against_epistemic(doubts: Mapping[str, Doubt]) -> Figure:
    """One panel per label: a dot per row, right ones in the arm's colour, wrong ones as orange crosses.

    At most 500 rows are drawn, evenly spaced in the order of the rows.
    """
    with house_style():
        figure, stacks = panels(len(doubts), (3.1, 2.8))
        for (label, doubt), (axes,) in zip(doubts.items(), stacks, strict=True):
            drawn = np.unique(np.linspace(0, len(doubt.correct) - 1, MOST_POINTS).round().astype(int))
            right = doubt.correct[drawn] > 0
            for name, kept, shade, mark in (
                ("right", right, colour(label), "o"),
                ("wrong", ~right, OUTSIDE, "X"),
            ):
                sns.scatterplot(
                    x=doubt.confidence[drawn][kept],
                    y=doubt.epistemic[drawn][kept],
                    color=shade,
                    marker=mark,
                    s=16 if name == "right" else 30,
                    alpha=0.55 if name == "right" else 0.9,
                    linewidth=0,
                    label=name,
                    legend=False,
                    ax=axes,
                )
            axes.set(xlim=(0, 1.02), xlabel="confidence", ylabel="epistemic, nats")
            axes.set_ylim(bottom=0)
            by_epistemic, by_confidence = doubt.finds_errors
            axes.set_title(
                f"{label}\nfinds errors {by_epistemic:.2f}, confidence {by_confidence:.2f}", fontsize=9
            )
        legend_above(figure, stacks[0][0])
    return figure
