"""Figure of reliability class by class: is the probability of each class the share of rows that have it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from bayes_clip.evaluation.reliability import Reliability, reliability
from bayes_clip.report.style import BAND, MUTED, colour, house_style, legend_above, marker, panels

BINS = 10  # a class has few rows: fewer and fuller bins than for the winning class
MOST_CLASSES = 12
MOST_COLUMNS = 4


def of_classes(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str], most: int = MOST_CLASSES
) -> dict[str, Reliability]:
    """Class name -> reliability of its probability against the rest, for at most `most` classes.

    `probabilities` (M, C), `labels` (M,). Where there are more classes, those with the largest calibration
    error above what a calibrated model would show (`Reliability.ece_if_calibrated`), largest first; else all
    in their order. Classes of one name are told apart by their number.
    """
    found = [reliability(probabilities[:, k], labels == k, BINS) for k in range(probabilities.shape[1])]
    chosen = list(range(len(found)))
    if len(found) > most:
        excess = [found[k].ece - found[k].ece_if_calibrated for k in chosen]
        chosen = np.argsort(-np.array(excess), kind="stable")[:most].tolist()
    names = [str(name) for name in class_names]
    twins = {name for name in names if names.count(name) > 1}
    return {f"{names[k]} ({k})" if names[k] in twins else names[k]: found[k] for k in chosen}


def classwise_reliability(found: Mapping[str, Reliability], label: str) -> Figure:
    """One panel per class: share of rows of the class against its probability, with the consistency band.

    `found`: class -> its reliability (see `of_classes`); `label`: the arm, which gives colour and marker.
    The area of a point tells the rows in its bin.
    """
    with house_style():
        figure, stacks = panels(len(found), (2.15, 2.1), most_columns=MOST_COLUMNS)
        most = max(int(one.counts.max()) for one in found.values())
        for index, ((name, one), (axes,)) in enumerate(zip(found.items(), stacks, strict=True)):
            axes.bar(
                one.edges[:-1],
                one.upper - one.lower,
                np.diff(one.edges),
                one.lower,
                align="edge",
                color=BAND,
                label=f"{one.level:.0%} of calibrated models",
            )
            axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.0, label="calibrated")
            filled = one.counts > 0
            axes.plot(one.confidence, one.accuracy, color=colour(label), linewidth=1.0)
            sns.scatterplot(
                x=one.confidence[filled],
                y=one.accuracy[filled],
                s=12 + 68 * one.counts[filled] / most,
                color=colour(label),
                marker=marker(label),
                label=label,
                legend=False,
                ax=axes,
            )
            axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.set_title(f"{_short(name)}: ECE {one.ece:.3f}", fontsize=8.5)
            axes.set_xlabel("probability" if index >= len(stacks) - MOST_COLUMNS else "")
            axes.set_ylabel("share" if index % MOST_COLUMNS == 0 else "")
        legend_above(figure, stacks[0][0])
    return figure


def _short(name: str, most: int = 14) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
