"""Figures of a check: rank histograms, distribution functions of ranks, coverage, a filter's innovations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.stats import binom

from bayes_clip.evaluation.checking import Check
from bayes_clip.evaluation.consistency import DRAWS
from bayes_clip.evaluation.coverage import LEVELS
from bayes_clip.evaluation.simulation_based import LIKELIHOOD, Calibration
from bayes_clip.evaluation.uniformity import LEVEL, band
from bayes_clip.report.style import BAND, INK, MUTED, OUTSIDE, colour, house_style, legend_above

BINS = 20
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def rank_histograms(checks: Sequence[Check]) -> Figure:
    """A row per prior variance, a column per kind of quantity: the ranks of the truth among posterior draws.

    Bars are means over the quantities of a kind, the line is the quantity that fails most, and the band is
    that of one quantity of a sound engine (99 % over all bins together).
    """
    kinds = list(_kinds(checks[0].calibration))
    with house_style():
        figure = Figure(figsize=(3.1 * len(kinds), 0.6 + 1.9 * len(checks)), layout="constrained")
        grid = figure.subplots(len(checks), len(kinds), squeeze=False, sharex=True, sharey="row")
        for row, check in zip(grid, checks, strict=True):
            for axes, (kind, picked) in zip(row, _kinds(check.calibration).items(), strict=True):
                _histogram(axes, check.calibration, picked, colour(check.arm.engine))
                axes.set_title(f"{kind}\ns²v = {check.prior_logit_variance:g}", fontsize=8.5)
            row[0].set_ylabel("share of data sets")
        for axes in grid[-1]:
            axes.set_xlabel("rank of the truth")
        legend_above(figure, grid[0][0])
    return figure


def rank_functions(checks: Sequence[Check]) -> Figure:
    """A panel per prior variance: each quantity's distribution function of ranks minus the uniform one.

    Lines that leave the band (99 % for all points of one line) are drawn dark. A posterior that is too narrow
    makes waves up first and then down, one that is too wide the other way about.
    """
    with house_style():
        figure = Figure(figsize=(3.1 * len(checks), 2.9), layout="constrained")
        panels = figure.subplots(1, len(checks), squeeze=False, sharey=True)[0]
        for axes, check in zip(panels, checks, strict=True):
            found = check.calibration
            at = np.arange(1, found.draws + 1) / (found.draws + 1)
            low, high = band(len(found.ranks), found.draws)
            axes.fill_between(at, low - at, high - at, color=BAND, linewidth=0, label="a sound engine")
            for column in found.ranks.T:
                share = np.bincount(column, minlength=found.draws + 1).cumsum()[:-1] / len(column)
                leaves = bool(((share < low) | (share > high)).any())
                axes.plot(
                    at,
                    share - at,
                    color=OUTSIDE if leaves else MUTED,
                    linewidth=1.4 if leaves else 0.8,
                    linestyle="-" if leaves else ":",
                    label="a quantity that leaves the band" if leaves else "a quantity inside",
                )
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set_title(f"s²v = {check.prior_logit_variance:g}: {found.verdict}", fontsize=9)
            axes.set_xlabel("rank of the truth, as a share")
        panels[0].set_ylabel("distribution function\nminus the uniform one")
        _legend_once(figure, panels)
    return figure


def coverage_plot(checks: Sequence[Check]) -> Figure:
    """A panel per level: the share of true values inside the central interval, a row per arm."""
    labels = list(dict.fromkeys(check.arm.label for check in checks))
    values = sorted({check.prior_logit_variance for check in checks})
    with house_style():
        figure = Figure(figsize=(2.0 + 2.5 * len(LEVELS), 1.4 + 0.36 * len(labels)), layout="constrained")
        panels = figure.subplots(1, len(LEVELS), squeeze=False, sharey=True)[0]
        for index, (axes, level) in enumerate(zip(panels, LEVELS, strict=True)):
            shown = [check.calibration.coverage[index] for check in checks]
            axes.axvspan(max(each.low for each in shown), min(each.high for each in shown), color=BAND, lw=0)
            axes.axvline(level, color=MUTED, linestyle="--", linewidth=1.0)
            for check, found in zip(checks, shown, strict=True):
                order = values.index(check.prior_logit_variance)
                axes.plot(
                    [found.share],
                    [labels.index(check.arm.label)],
                    color=colour(check.arm.engine),
                    marker=MARKERS[order % len(MARKERS)],
                    markerfacecolor="white" if order % 2 else colour(check.arm.engine),
                    linestyle="none",
                    label=f"s²v = {check.prior_logit_variance:g}",
                )
            axes.set_title(f"{level:.0%} intervals")
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_xlim(0, 1.02)
            axes.set_xlabel("truths inside")
        panels[0].set_yticks(range(len(labels)), labels)
        panels[0].set_ylim(len(labels) - 0.5, -0.5)
        _legend_once(figure, panels)
        sns.despine(figure, left=True)
    return figure


def innovation_plot(checks: Sequence[Check]) -> Figure:
    """A row per prior variance: ranks of innovations among what the filter expected, labels and numbers."""
    streams = ("labels", "numbers") if any(check.numbers for check in checks) else ("labels",)
    with house_style():
        size = (6.0 * len(streams), 0.6 + 1.9 * len(checks))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(checks), 2 * len(streams), squeeze=False, sharex=True)
        for row, check in zip(grid, checks, strict=True):
            row[0].set_ylabel("share")
            for index, kind in enumerate(streams):
                found = getattr(check, kind)
                pair = (("innovation²", found.nis_ranks), ("transforms", found.transform_ranks))
                for axes, (what, ranks) in zip(row[2 * index : 2 * index + 2], pair, strict=True):
                    _bars(axes, _shares(ranks[:, None], DRAWS)[:, 0], len(ranks), colour(check.arm.engine))
                    axes.set_title(
                        f"{kind}, {what}: {found.verdict}\ns²v = {check.prior_logit_variance:g}", fontsize=8.5
                    )
        for axes in grid[-1]:
            axes.set_xlabel("rank among what was expected")
        legend_above(figure, grid[0][0])
    return figure


def _histogram(axes: Axes, found: Calibration, picked: np.ndarray, shade: str) -> None:
    shares = _shares(found.ranks[:, picked], found.draws)
    _bars(axes, shares.mean(1), len(found.ranks), shade)
    p_values = [check.p_value for check, wanted in zip(found.checks, picked, strict=True) if wanted]
    if len(p_values) > 1:
        worst = shares[:, int(np.argmin(p_values))]
        axes.stairs(worst, np.linspace(0, 1, BINS + 1), color=INK, linewidth=1.0, label="worst quantity")


def _bars(axes: Axes, shares: np.ndarray, total: int, shade: str) -> None:
    """Histogram of shares (BINS,) over 0..1 above the band of `total` uniform ranks."""
    edges = np.linspace(0, 1, BINS + 1)
    tail = LEVEL / BINS / 2
    low, high = (binom.ppf(at, total, 1 / BINS) / total for at in (tail, 1 - tail))
    axes.axhspan(float(low), float(high), color=BAND, linewidth=0, label="a sound engine")
    axes.bar(edges[:-1], shares, 0.8 / BINS, align="edge", color=shade, label="this engine")
    axes.axhline(1 / BINS, color=MUTED, linestyle="--", linewidth=0.8)
    axes.set_xlim(0, 1)


def _shares(ranks: np.ndarray, draws: int) -> np.ndarray:
    """Share of the ranks (N, Q) in each of BINS bins of equal width, (BINS, Q)."""
    bins = np.minimum(ranks * BINS // (draws + 1), BINS - 1)
    return np.stack([np.bincount(column, minlength=BINS) for column in bins.T], axis=1) / len(ranks)


def _kinds(found: Calibration) -> Mapping[str, np.ndarray]:
    """Kind of quantity -> which of the quantities (Q,) are of it."""
    likelihood = np.array([name == LIKELIHOOD for name in found.names])
    probe = np.array([name.startswith("probe") for name in found.names])
    return {"weights": ~likelihood & ~probe, "logit differences": probe, "log likelihood": likelihood}


def _legend_once(figure: Figure, panels: Sequence[Axes]) -> None:
    """A legend above the figure that names everything drawn in any panel once."""
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=min(4, len(handles)))
