"""Rows as a CSV file, as a table on the terminal, and what is to be known of them as JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.table import Table

from analysis.benchmarks.contest import COLUMNS, Row
from analysis.benchmarks.hardware import described
from bayes_clip.storage.files import write_whole

WIDE = 170  # columns of a table that goes to a file


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """results.csv, whole or not at all."""
    lines = [[_cell(getattr(row, column)) for column in COLUMNS] for row in rows]
    write_lines(COLUMNS, lines, path)


def write_lines(columns: Sequence[str], lines: Sequence[Sequence[str]], path: Path) -> None:
    """A CSV file, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(lines)
    write_whole(path, text.getvalue().encode())


def write_about(rows: Sequence[Row], device: torch.device, seconds: float, path: Path) -> None:
    """The hardware, the versions and each row's tolerance, beside results.csv."""
    tolerances = {f"{row.case}, {row.peer}": row.tolerance for row in rows}
    about = {**described(device), "seconds_of_the_run": round(seconds), "tolerances": tolerances}
    write_whole(path, (json.dumps(about, indent=2) + "\n").encode())


def write_markdown(rows: Sequence[Row], path: Path) -> None:
    """results.md, for people and for the README."""
    lines = ["| case | ours | peer | peer's | speedup | of limit |", "|---|---|---|---|---|---|"]
    lines += [
        f"| `{row.case}` | {_seconds(row.ours_seconds)} | {row.peer} | {_seconds(row.peer_seconds)} | "
        f"{times(row.speedup)}× | {row.fraction_of_limit:.2f} |"
        for row in rows
    ]
    write_whole(path, ("\n".join(lines) + "\n").encode())


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def shown(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    table = Table(width=None if sys.stdout.isatty() else WIDE)
    for title in ("case", "device", "ours", "peer", "peer's", "speedup", "of limit", "agreement"):
        table.add_column(title, justify="left" if title in ("case", "device", "peer") else "right")
    for row in rows:
        agreement = f"{row.agreement:.2g}" if row.agrees else f"{row.agreement:.2g} DISAGREES"
        table.add_row(
            row.case, row.device, f"{row.ours_seconds:.3g} s", row.peer, f"{row.peer_seconds:.3g} s",
            f"{times(row.speedup)}x", f"{row.fraction_of_limit:.2f}", agreement,
        )  # fmt: skip
    return table


def times(speedup: float) -> str:
    """A speedup for people: three digits, none behind the point from a thousand on."""
    return f"{speedup:,.0f}" if speedup >= 1000 else f"{speedup:.3g}"


def _cell(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
