"""Figure of posterior marginals of single weights or logits, approximations over the draws of a yardstick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from scipy.stats import wasserstein_distance

from bayes_clip.report.style import BAND, LINE_STYLES, colour, house_style, legend_above, panels

BINS = 40


def marginals(draws: Mapping[str, np.ndarray], names: Sequence[str], yardstick: str = "nuts") -> Figure:
    """One panel per quantity: a histogram of the yardstick's draws, a smoothed density of every other.

    `draws`: label -> (S, Q) draws of Q quantities named `names` (such as `to_arviz(...).posterior` gives);
    the numbers of draws may differ. Titles tell how far each is from the yardstick (`distances`).
    """
    found = distances(draws, yardstick)
    others = [label for label in draws if label != yardstick]
    with house_style():
        figure, stacks = panels(len(names), (3.1, 2.6))
        for index, (name, (axes,)) in enumerate(zip(names, stacks, strict=True)):
            sns.histplot(
                x=draws[yardstick][:, index],
                bins=BINS,
                stat="density",
                element="step",
                color=BAND,
                alpha=1.0,
                label=yardstick,
                ax=axes,
            )
            for order, label in enumerate(others):
                sns.kdeplot(
                    x=draws[label][:, index],
                    color=colour(label),
                    linestyle=LINE_STYLES[order % len(LINE_STYLES)],
                    warn_singular=False,
                    label=label,
                    ax=axes,
                )
            away = ", ".join(f"{label} {found[label][index]:.2f}" for label in others)
            axes.set_title(f"{name}\naway: {away}", fontsize=8.5)
            axes.set(xlabel="", ylabel="", yticks=[])
            axes.grid(False, axis="y")
        legend_above(figure, stacks[0][0])
    return figure


def distances(draws: Mapping[str, np.ndarray], yardstick: str = "nuts") -> dict[str, np.ndarray]:
    """Label -> Wasserstein-1 distance (Q,) of its draws from the yardstick's, in its standard deviations.

    Draws of the exact posterior would be away by about 1/√S of them.

    Raises:
        ValueError: no draws of the yardstick, or other quantities.
    """
    if yardstick not in draws:
        raise ValueError(f"no draws of {yardstick}, the yardstick; got {', '.join(draws)}")
    exact = draws[yardstick]
    if any(each.ndim != 2 or each.shape[1] != exact.shape[1] for each in draws.values()):
        raise ValueError("draws must all be (S, Q) of the same Q quantities")
    return {
        label: np.array(
            [wasserstein_distance(own, true) / true.std() for own, true in zip(each.T, exact.T, strict=True)]
        )
        for label, each in draws.items()
        if label != yardstick
    }
