"""Figure of what was tried for the prior variance: left-out folds, the evidence, and test rows if known."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from bayes_clip.report.style import ENGINE_COLOURS, INK, MUTED, OUTSIDE, house_style

MOST_TICKS = 9
LOOKS = {  # criterion -> what it is, colour, marker, line
    "folds": ("left-out folds", ENGINE_COLOURS["ekf"], "o", "-"),
    "objective": ("folds and hyper-prior", INK, "s", ":"),
    "evidence": ("minus log evidence", ENGINE_COLOURS["laplace"], "D", "--"),
    "test": ("test images", OUTSIDE, "^", "-."),
}


def prior_variance_profile(
    profile: Mapping[str, Mapping[float, float]], chosen: float | None = None, what: str = "prior variance"
) -> Figure:
    """Nats a label above the lowest of each curve, against the prior variance; a large marker at the lowest.

    `profile`: criterion (``folds``, ``objective``, ``evidence``, ``test``) -> prior variance -> nats per
    label; curves without points are left out. `chosen` is marked by a line. Only differences within a curve
    are drawn: the criteria score different things.
    """
    with house_style():
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        axes = figure.subplots()
        for criterion, points in profile.items():
            if not points:
                continue
            words, shade, mark, line = LOOKS[criterion]
            at = sorted(points)
            lowest = min(points.values())
            best = min(points, key=lambda value: points[value])
            gaps = [points[value] - lowest for value in at]
            axes.plot(at, gaps, color=shade, marker=mark, markersize=4, linestyle=line, label=words)
            axes.plot([best], [0.0], color=shade, marker=mark, markersize=9, linestyle="none")
        if chosen is not None:
            axes.axvline(chosen, color=MUTED, linewidth=1.0, label=f"chosen: {chosen:.3g}")
        axes.set_xscale("log")
        tried = sorted({value for points in profile.values() for value in points})
        if len(tried) <= MOST_TICKS:
            axes.set_xticks(tried, [f"{value:.3g}" for value in tried])
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=what, ylabel="nats a label\nabove the lowest")
        axes.legend(loc="best")
    return figure
