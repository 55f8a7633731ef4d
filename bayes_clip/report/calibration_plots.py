"""Figures of confidence against truth: reliability diagrams and risk-coverage curves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from bayes_clip.evaluation.reliability import Reliability
from bayes_clip.evaluation.selective import RiskCoverage
from bayes_clip.report.style import (
    BAND,
    INK,
    MUTED,
    SHORT_LABEL,
    colour,
    house_style,
    legend_above,
    marker,
    panel_title,
    panels,
)

MOST_POINTS = 400  # of a drawn curve: more would only make the file large


def reliability_diagram(found: Mapping[str, Reliability]) -> Figure:
    """One panel per label: accuracy against confidence by bin, the consistency band, and the counts below."""
    with house_style():
        figure, stacks = panels(len(found), (3.1, 3.4), ratios=(3.2, 1.0))
        for (label, reliability), (upper, lower) in zip(found.items(), stacks, strict=True):
            widths, left = np.diff(reliability.edges), reliability.edges[:-1]
            upper.bar(
                left,
                reliability.upper - reliability.lower,
                widths,
                reliability.lower,
                align="edge",
                color=BAND,
                label=f"{reliability.level:.0%} of calibrated models",
            )
            upper.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.0, label="calibrated")
            sns.lineplot(
                x=reliability.confidence,
                y=reliability.accuracy,
                color=colour(label),
                marker=marker(label),
                label="this model",
                legend=False,
                ax=upper,
            )
            upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
            upper.set_title(
                f"{label}\nECE {reliability.ece:.3f}, floor {reliability.ece_if_calibrated:.3f}",
                fontsize=10 if len(label) <= SHORT_LABEL else 8.5,
            )
            lower.bar(left, reliability.counts, widths * 0.9, align="edge", color=colour(label))
            lower.set(xlabel="confidence", ylabel="rows")
            lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        legend_above(figure, stacks[0][0])
    return figure


def risk_coverage_plot(curves: Mapping[str, RiskCoverage]) -> Figure:
    """One panel per label: error rate among the rows answered, its oracle, a random order, the others."""
    # The first few rows answered decide little and swing wildly: they do not set the scale.
    highest = 1.08 * max(curve.risk[curve.coverage >= 0.05].max() for curve in curves.values()) or 1.0
    with house_style():
        figure, stacks = panels(len(curves), (3.1, 2.7))
        for (label, curve), (axes,) in zip(curves.items(), stacks, strict=True):
            for other in (name for name in curves if name != label):
                axes.plot(*_thinned(curves[other].coverage, curves[other].risk), color=BAND, linewidth=1.0)
            axes.plot(
                *_thinned(curve.coverage, curve.oracle),
                color=INK,
                linestyle="--",
                linewidth=1.0,
                label="oracle",
            )
            axes.axhline(curve.random, color=MUTED, linestyle=":", linewidth=1.4, label="random order")
            axes.plot(
                *_thinned(curve.coverage, curve.risk), color=colour(label), linewidth=2.2, label="this model"
            )
            axes.set(xlim=(0, 1), ylim=(0, highest), xlabel="share answered", ylabel="error rate")
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            panel_title(axes, label, f"AURC {curve.aurc:.3f}")
        legend_above(figure, stacks[0][0])
    return figure


def _thinned(coverage: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, len(coverage) - 1, MOST_POINTS).round().astype(int))
    return coverage[keep], values[keep]
