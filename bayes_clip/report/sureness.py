"""How sure the numbers of a comparison are: intervals over test images, and tests of who is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bayes_clip.evaluation.paired import SEEDS
from bayes_clip.evaluation.results import SCORE_COLUMNS, Cell
from bayes_clip.evaluation.row_tests import QUERY_ROWS
from bayes_clip.report.arms import Setting, detailed
from bayes_clip.report.document import Grid, GridCell
from bayes_clip.report.findings import listed
from bayes_clip.report.tables import COLUMNS, SCORE_TITLES

Row = Mapping[str, Cell]

CLEAR = 0.05  # p value, adjusted for all pairs, below which two methods are said to differ
MORE_IS_BETTER = {name: better for name, _, _, better, _ in COLUMNS}


@dataclass(frozen=True)
class Sureness:
    """What the report says of one setting: its tables, and what to conclude."""

    title: str
    sentences: tuple[str, ...]
    tables: tuple[Grid, ...]


def sureness(settings: Sequence[Setting], intervals: Sequence[Row], pairs: Sequence[Row]) -> list[Sureness]:
    """Of the settings that are shown in detail: intervals of the first seed's runs, and the tests.

    The tests are over seeds where there are several draws of the labels, else over test images.
    """
    found = []
    for setting in detailed(settings):
        here = [row for row in intervals if _is_of(row, setting)]
        tested = [row for row in pairs if _is_of(row, setting)]
        over = SEEDS if any(row["over"] == SEEDS for row in tested) else QUERY_ROWS
        first = next(iter(setting.arms.values()))[0].row.get("seed", "")
        tested = [row for row in tested if row["over"] == over and row["seed"] in ("", first)]
        tables = [_interval_grid(setting, [row for row in here if row["seed"] == first])]
        tables += [_pair_grid(setting, tested, over)] if tested else []
        found.append(Sureness(setting.name, tuple(conclusions(tested, over)), tuple(tables)))
    return found


def conclusions(pairs: Sequence[Row], over: str) -> list[str]:
    """For every metric: who is ahead, and of whom it can be told apart."""
    found = []
    for metric in dict.fromkeys(str(row["metric"]) for row in pairs):
        rows = [row for row in pairs if row["metric"] == metric]
        best = _best(rows, metric)
        rivals = [(_other(row, best), row["p_holm"]) for row in rows if best in (row["method"], row["other"])]
        apart = [name for name, p in rivals if p != "" and float(p) < CLEAR]
        level = [name for name, p in rivals if not (p != "" and float(p) < CLEAR)]
        said = f"{SCORE_TITLES[metric]}: {best} is ahead"
        if apart:
            said += f", by more than chance of {listed(apart)}"
        if level:
            said += (
                f"; not told apart from {listed(level)}"
                if apart
                else f", but of none by more than chance \
({listed(level)})"
            )
        found.append(f"{said} (over {over}).")
    return found


def _interval_grid(setting: Setting, rows: Sequence[Row]) -> Grid:
    labels = list(setting.arms)
    keys = {(one.row["model"], one.row["engine"]): label for label, (one, *_) in setting.arms.items()}
    by_place = {(row["metric"], keys.get((row["model"], row["engine"]))): row for row in rows}
    metrics = [name for name in SCORE_COLUMNS if any((name, label) in by_place for label in labels)]
    return Grid(
        title=f"Intervals over test images: {setting.name}",
        headings=(("Score", "", True), *((label, "value, and 95 % interval", False) for label in labels)),
        rows=tuple(
            (
                GridCell(SCORE_TITLES[metric], SCORE_TITLES[metric], True),
                *(_interval_cell(by_place.get((metric, label))) for label in labels),
            )
            for metric in metrics
        ),
    )


def _interval_cell(row: Row | None) -> GridCell:
    if row is None:
        return GridCell("", "", False)
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    return GridCell(f"{value:.3f} ({low:.3f} to {high:.3f})", value, False)


def _pair_grid(setting: Setting, pairs: Sequence[Row], over: str) -> Grid:
    """The best of every metric against each other one."""
    rows = []
    for metric in dict.fromkeys(str(row["metric"]) for row in pairs):
        here = [row for row in pairs if row["metric"] == metric]
        best = _best(here, metric)
        rows += [_pair_cells(row, best) for row in here if best in (row["method"], row["other"])]
    return Grid(
        title=f"The best against each other, over {over}: {setting.name}",
        headings=(
            *(("Score", "", True), ("Best", "", True), ("Other", "", True)),
            ("Difference", "best less other", False),
            ("95 % interval", "", False),
            ("Test", "", True),
            ("p", "chance of such a difference between equals", False),
            ("p, Holm", "adjusted for all pairs of methods", False),
        ),
        rows=tuple(rows),
    )


def _pair_cells(row: Row, best: str) -> tuple[GridCell, ...]:
    sign = 1.0 if row["method"] == best else -1.0
    difference = sign * float(row["difference"])
    ends = sorted(sign * float(row[name]) for name in ("low", "high") if row[name] != "")
    words = (SCORE_TITLES[str(row["metric"])], best, _other(row, best))
    return (
        *(GridCell(text, text, True) for text in words),
        GridCell(f"{difference:+.4f}", difference, False),
        GridCell(" to ".join(f"{end:+.4f}" for end in ends), ends[0] if ends else "", False),
        GridCell(str(row["test"]), str(row["test"]), True),
        *(_p_cell(row[name]) for name in ("p", "p_holm")),
    )


def _p_cell(value: Cell) -> GridCell:
    return GridCell("" if value == "" else f"{float(value):.2g}", value, False)


def _best(rows: Sequence[Row], metric: str) -> str:
    """The method whose mean is best, told from the differences alone."""
    methods = dict.fromkeys(str(row[name]) for row in rows for name in ("method", "other"))
    ahead = dict.fromkeys(methods, 0.0)
    for row in rows:
        ahead[str(row["method"])] += float(row["difference"])
        ahead[str(row["other"])] -= float(row["difference"])
    return (max if MORE_IS_BETTER[metric] else min)(ahead, key=lambda name: ahead[name])


def _other(row: Row, best: str) -> str:
    return str(row["other"] if row["method"] == best else row["method"])


def _is_of(row: Row, setting: Setting) -> bool:
    return row["task"] == setting.task and row["shots"] == setting.shots
