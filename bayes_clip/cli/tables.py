"""What the commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bayes_clip.data.coop_layouts import Layout
    from bayes_clip.evaluation.results import Comparison
    from bayes_clip.evaluation.verdicts import Verdicts
    from bayes_clip.forecast import Forecast

Column = tuple[str, str, int | None]  # of a summary, its heading, digits after the point (None: as it is)

COMPARISON: tuple[Column, ...] = (
    ("task", "task", None),
    ("shots", "shots", None),
    ("model", "model", None),
    ("engine", "engine", None),
    ("accuracy", "accuracy", 3),
    ("nll", "NLL", 3),
    ("ece", "ECE", 3),
    ("ood_auroc", "OOD AUROC", 3),
    ("fit_seconds", "fit s", 1),
    ("self_check", "own check", None),
)
INTERVALS: tuple[Column, ...] = (
    ("metric", "score", None),
    ("value", "value", 3),
    ("low", "95 % from", 3),
    ("high", "to", 3),
)
PROTOCOL: tuple[Column, ...] = (("part", "classes", None), *COMPARISON[:7])
PROTOCOL_KEY = ("task", "shots", "model", "engine")

VERDICT = (
    ("input", "input", None),
    ("class", "class", None),
    ("probability", "probability", 3),
    ("epistemic", "epistemic", 3),
    ("verdict", "in/out", None),
    ("set_size", "classes", None),
    ("set", "that may be", None),
    ("abstained", "abstained", None),
)
SUGGESTION: tuple[Column, ...] = (
    ("rank", "rank", None),
    ("input", "input", None),
    ("class", "class", None),
    ("probability", "probability", 3),
    ("information", "information", 3),
    ("alone", "alone", 3),
    ("evidence", "evidence", 3),
)
FORECAST: tuple[Column, ...] = (
    ("covariance", "covariance", None),
    ("weights", "weights", 0),
    ("posterior", "posterior", None),
    ("peak", "peak", None),
    ("seconds", "seconds", None),
    ("fits", "fits", None),
    ("chosen", "", None),
)
MISSING: tuple[Column, ...] = (
    ("title", "not there", None),
    ("folder", "folder", None),
    ("page", "where to get it", None),
)
MOST_ROWS = 40
MOST_OF_SET = 3  # classes of a prediction set
WIDTH_IN_FILES = 160


def comparison_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """One line for every task, shot count, model and engine: means over the seeds, ± the standard error.

    Columns that say the same on every line are left to the caption.
    """
    columns = [column for column in COMPARISON if column[2] is not None or _varies(summary, column[0])]
    return plain_table(columns, summary)


def plain_table(columns: Sequence[Column], summary: Sequence[Mapping[str, Any]]) -> Table:
    """One line for every row; a column that is empty in all of them is left out."""
    columns = [column for column in columns if any(row[column[0]] != "" for row in summary)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for _, heading, digits in columns:
        # where the terminal is narrow a number goes on the next line rather than lose its end
        justify: Literal["left", "right"] = "left" if digits is None else "right"
        table.add_column(heading, justify=justify, no_wrap=digits is None, overflow="fold")
    for row in summary:
        table.add_row(*(_cell(row, name, digits) for name, _, digits in columns))
    return table


def show_comparison(comparison: Comparison, folder: Path | None) -> None:
    """The table, the remarks, and where the report lies."""
    from bayes_clip.evaluation.results import summarise

    show(comparison_table(summarise(comparison)))
    notes(comparison.notes)
    if folder is not None:
        line(f"report: {folder / 'report.html'}")


def interval_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Every score of one posterior with its interval over the query rows."""
    return plain_table(INTERVALS, rows)


def verdict_table(verdicts: Verdicts) -> Table:
    """The first rows of a prediction; of the classes that each may belong to, the first few."""
    shown = [{**row, "set": _first_few(str(row["set"]))} for row in verdicts.rows[:MOST_ROWS]]
    table = plain_table(VERDICT, shown)
    if len(verdicts.rows) > MOST_ROWS:
        table.caption = f"and {len(verdicts.rows) - MOST_ROWS} more; --out FILE.csv keeps them all"
    return table


def forecast_table(rows: Sequence[Forecast]) -> Table:
    """One line for every covariance: what it holds, what it takes, and whether there is room for it."""
    return plain_table(
        FORECAST,
        [
            {
                "covariance": row.covariance,
                "weights": row.weights,
                "posterior": _size(row.posterior_bytes),
                "peak": _size(row.peak_bytes),
                "seconds": f"{row.seconds:.2g}" if row.seconds < 10 else f"{row.seconds:.0f}",
                "fits": "yes" if row.fits else "no",
                "chosen": "<- chosen" if row.chosen else "",
            }
            for row in rows
        ],
    )


def show_missing(layouts: Sequence[Layout]) -> None:
    """One line for every data set that is not there: the folder it is looked for in, where to get it."""
    from bayes_clip.data.coop_layouts import MIRROR

    show(plain_table(MISSING, [{name: getattr(one, name) for name, *_ in MISSING} for one in layouts]))
    others = [layout.title for layout in layouts if not layout.mirrored]
    if len(others) < len(layouts):
        but = f" but {', '.join(others)}" if others else ""
        line(f"all{but}, with their split files: {MIRROR}")


def protocol_table(summary: Sequence[Mapping[str, Any]]) -> Table:
    """Means over seeds ± half their interval: of all data sets together where there are several."""
    from bayes_clip.evaluation.paired import EVERY, SEEDS

    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    every = {row["part"] for row in summary if row["task"] == EVERY}
    for row in summary:
        if row["over"] != SEEDS or (row["part"] in every and row["task"] != EVERY):
            continue
        key = tuple(row[name] for name in ("part", "task", "shots", "model", "engine"))
        empty = {name: "" for name, *_ in PROTOCOL}
        line = rows.setdefault(key, empty | {"part": key[0], **{name: row[name] for name in PROTOCOL_KEY}})
        line[row["metric"]] = row["mean"]
        line[f"{row['metric']}_se"] = "" if row["low"] == "" else row["high"] - row["mean"]
    return plain_table(PROTOCOL, list(rows.values()))


def listing(described: Mapping[str, str]) -> Table:
    """Names and one line about each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, line in described.items():
        table.add_row(name, line)
    return table


def show(table: Table) -> None:
    """A table on standard output, as it is at the time of the call; in a file, as wide as it needs."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH_IN_FILES)
    console.print(table)


def line(text: str) -> None:
    """One line on standard output, however long."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def complain(text: str, label: str = "error") -> None:
    """One line on standard error."""
    Console(stderr=True, highlight=False).print(f"{label}: {text}", markup=False, soft_wrap=True)


def notes(texts: Sequence[str]) -> None:
    """What the user should know about how the result came about, each remark once."""
    for text in dict.fromkeys(texts):
        line(f"note: {text}")


def _first_few(names: str) -> str:
    """The first classes of a set in one cell, and how many more there are."""
    inside = names.split("; ")
    more = len(inside) - MOST_OF_SET
    return names if more <= 0 else "; ".join(inside[:MOST_OF_SET]) + f"; and {more} more"


def _size(count: int) -> str:
    """Bytes in the largest unit of which there is one."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def _varies(summary: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({row[name] for row in summary}) > 1 or name in ("task", "engine", "self_check")


def _cell(row: Mapping[str, Any], name: str, digits: int | None) -> str:
    value = row[name]
    if value == "" or digits is None:
        return str(value)
    spread = row.get(f"{name}_se", "")
    return f"{value:.{digits}f}" + (
        "" if spread == "" or name == "fit_seconds" else f" ± {spread:.{digits}f}"
    )
