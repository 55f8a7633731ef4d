"""Figures of a filter at work, from the steps of a fit or an update: what batches cost, how they surprised.

`Fit.steps` and `Update.steps` hold one `StepInfo` per batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import chi2

from bayes_clip.inference.kalman import StepInfo
from bayes_clip.report.style import BAND, INK, LINE_STYLES, MUTED, colour, house_style, legend_above

MOST_LAGS = 10
LEVEL = 0.95
MARKERS = ("o", "s", "^", "D")
WIDE = 20.0  # a ratio from which the axis is logarithmic


@dataclass(frozen=True)
class Course:
    """A stream of B batches; all arrays (B,) but the last.

    `cost` is minus the prequential score per label of the batch, `ratio` the normalised innovation squared
    over its degrees of freedom, whose mean a consistent filter keeps near 1 (to first order, for labels).
    `correlation` (L,) are the autocorrelations of `ratio` at lags 1 to L, L at most a quarter of B.
    """

    labels: np.ndarray  # labels learned when the batch is
    rows: np.ndarray
    cost: np.ndarray  # nats
    ratio: np.ndarray
    degrees_of_freedom: np.ndarray
    correlation: np.ndarray

    @property
    def mean_cost(self) -> np.ndarray:
        """Nats per label over all batches so far, (B,)."""
        return np.asarray(np.cumsum(self.cost * self.rows) / np.cumsum(self.rows))

    @property
    def limit(self) -> float:
        """|autocorrelation| below which 95 % of those of a white sequence of this length lie, about."""
        return 1.96 / float(np.sqrt(len(self.rows)))

    @property
    def overall_ratio(self) -> float:
        """Normalised innovation squared over its degrees of freedom, all batches together."""
        return float((self.ratio * self.degrees_of_freedom).sum() / self.degrees_of_freedom.sum())


def course_of(steps: Sequence[StepInfo]) -> Course:
    """The numbers of a stream's steps, on the CPU.

    Raises:
        ValueError: no steps (other engines than the filter have none).
    """
    if not steps:
        raise ValueError("no steps: only the filter (engine ekf) has them, and not where it was resumed")
    rows = np.array([step.rows for step in steps])
    freedom = np.array([step.degrees_of_freedom for step in steps])
    ratio = np.array([float(step.nis) for step in steps]) / freedom
    return Course(
        labels=rows.cumsum(),
        rows=rows,
        cost=-np.array([float(step.prequential_score) for step in steps]) / rows,
        ratio=ratio,
        degrees_of_freedom=freedom,
        correlation=autocorrelation(ratio, min(MOST_LAGS, len(rows) // 4)),
    )


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Sample autocorrelation (lags,) of (B,) values at lags 1 to `lags`; zero for a constant sequence."""
    centred = values - values.mean()
    scale = float(centred @ centred)
    return np.array([centred[lag:] @ centred[:-lag] / scale if scale else 0.0 for lag in range(1, lags + 1)])


def prequential_curve(courses: Mapping[str, Course], num_classes: int | None = None) -> Figure:
    """What labels cost before they are learned: each batch as a dot, the mean so far as a line; per label.

    `num_classes` draws what guessing evenly would cost, log C.
    """
    with house_style():
        figure = Figure(figsize=(6.4, 3.3), layout="constrained")
        axes = figure.subplots()
        for index, (label, course) in enumerate(courses.items()):
            sns.scatterplot(
                x=course.labels,
                y=course.cost,
                color=colour(label),
                marker=MARKERS[index % len(MARKERS)],
                s=18,
                alpha=0.6,
                linewidth=0,
                ax=axes,
            )
            axes.plot(
                course.labels,
                course.mean_cost,
                color=colour(label),
                linestyle=LINE_STYLES[index % len(LINE_STYLES)],
                label=f"{label}: {course.mean_cost[-1]:.3f} so far",
            )
        if num_classes is not None:
            level = float(np.log(num_classes))
            axes.axhline(level, color=MUTED, linestyle=":", linewidth=1.4, label=f"guessing: {level:.3f}")
        axes.set(xlabel="labels learned", ylabel="nats a label,\nbefore it is learned")
        axes.set_ylim(bottom=0)
        legend_above(figure, axes)
    return figure


def innovation_course(course: Course, label: str = "ekf") -> Figure:
    """Left, NIS over its degrees of freedom batch by batch; right, its autocorrelations (whiteness).

    The band on the left holds 95 % of the batches of a consistent filter of Gaussian observations
    (chi-square); labels scatter more widely around the same mean. That on the right is ± 1.96 / √B.
    """
    with house_style():
        figure = Figure(figsize=(8.6, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
        freedom, tail = course.degrees_of_freedom, (1 - LEVEL) / 2
        low, high = (chi2.ppf(at, freedom) / freedom for at in (tail, 1 - tail))
        left.fill_between(
            course.labels, low, high, color=BAND, step="mid", linewidth=0, label="95 %, were they Gaussian"
        )
        left.axhline(1.0, color=MUTED, linestyle="--", linewidth=1.0)
        left.plot(course.labels, course.ratio, color=colour(label), marker="o", markersize=3.5, linewidth=0.8)
        so_far = np.cumsum(course.ratio * freedom) / np.cumsum(freedom)
        left.plot(course.labels, so_far, color=INK, linewidth=1.6, label="mean so far")
        left.set(xlabel="labels learned", ylabel="NIS / degrees of freedom")
        if course.ratio.max() > WIDE:
            left.set_yscale("log")
        else:
            left.set_ylim(bottom=0)
        left.set_title(f"{label}: {course.overall_ratio:.3g} × the surprise expected")
        left.legend(loc="best")
        lags = np.arange(1, len(course.correlation) + 1)
        right.axhspan(-course.limit, course.limit, color=BAND, linewidth=0)
        right.axhline(0.0, color=MUTED, linewidth=0.8)
        right.bar(lags, course.correlation, 0.5, color=colour(label))
        right.set(xlabel="lag, batches", ylabel="autocorrelation")
        right.set_xlim(0.3, max(len(lags), 1) + 0.7)
        right.set_ylim(*_around(course))
        right.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_title("Does a surprise foretell the next?")
    return figure


def _around(course: Course) -> tuple[float, float]:
    """A symmetric range that holds the bars and the band."""
    largest = max([course.limit, *np.abs(course.correlation)])
    return -1.15 * largest, 1.15 * largest
