"""What a run of the protocol is summed up in: tables as CSV and Markdown, and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bayes_clip.evaluation.paired import (
    METRICS,
    PAIR_COLUMNS,
    SEEDS,
    SUMMARY_COLUMNS,
    named,
    pair_rows,
    summary_rows,
)
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.table_file import write_rows
from bayes_clip.report.arms import safe_name
from bayes_clip.report.protocol_plots import protocol_figure
from bayes_clip.report.svg import svg_text
from bayes_clip.report.tables import COLUMNS
from bayes_clip.storage.files import write_whole, written_whole

Row = Mapping[str, Cell]

FILES = ("summary.csv", "summary.md", "paired.csv", "paired.md", "figures")
MORE_IS_BETTER = {name: better for name, _, _, better, _ in COLUMNS}
TITLES = {name: title for name, title, *_ in COLUMNS}
PARTS = {
    "all": "",
    "base": " (learned classes)",
    "new": " (classes never learned)",
    "harmonic": " (harmonic mean of learned and new classes)",
    "shift": " (learned on ImageNet)",
}


def write_protocol(rows: Sequence[Row], folder: Path) -> list[dict[str, Cell]]:
    """Write FILES beside the table of `rows` and return the summary; each file whole or not at all."""
    summary, pairs = summary_rows(rows), pair_rows(rows)
    write_rows(folder / "summary.csv", summary, SUMMARY_COLUMNS)
    write_rows(folder / "paired.csv", pairs, PAIR_COLUMNS)
    write_whole(folder / "summary.md", summary_markdown(summary).encode())
    write_whole(folder / "paired.md", paired_markdown(pairs, summary).encode())
    (folder / "figures").mkdir(exist_ok=True)
    for (part, task), group in _grouped(summary, "part", "task"):
        name = "_".join(["shots", *([] if part == "all" else [part]), safe_name(task)])
        figure = protocol_figure(group)
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # the layout is settled: two files are saved from it
        with written_whole(folder / "figures" / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=160)
        write_whole(folder / "figures" / f"{name}.svg", svg_text(figure).encode())
    return summary


def summary_markdown(summary: Sequence[Row]) -> str:
    """A table per part, data set and metric: methods by shots, means ± half their intervals over seeds."""
    lines = ["# Means over seeds", "", "± half the 95 % interval of the mean (Student's t over seeds).", ""]
    for (part, task), group in _grouped(summary, "part", "task"):
        for metric in METRICS:
            rows = [row for row in group if row["metric"] == metric and row["over"] == SEEDS]
            if not rows:
                continue
            shots = sorted({int(row["shots"]) for row in rows})
            said = {(_method(row), int(row["shots"])): _mean(row) for row in rows}
            methods = list(dict.fromkeys(_method(row) for row in rows))
            lines += [f"## {task}{PARTS[part]}: {TITLES[metric]}", ""]
            lines += _markdown(
                ["method", *(str(count) for count in shots)],
                [[method, *(said.get((method, count), "") for count in shots)] for method in methods],
            )
    return "\n".join(lines)


def paired_markdown(pairs: Sequence[Row], summary: Sequence[Row]) -> str:
    """For every part, data set, metric and shots: the method with the best mean against each other."""
    lines = [
        "# Differences on the same draws",
        "",
        "The method with the best mean against each other one: mean difference (best less other), its 95 % "
        "interval by Student's t, p values of the paired t test (also adjusted for all pairs by Holm's "
        "method) and of Wilcoxon's signed rank test. That the best is picked on the same draws makes "
        "it look better than it is. All pairs are in paired.csv.",
        "",
    ]
    best = _best(summary)
    for (part, task, metric, over), group in _grouped(pairs, "part", "task", "metric", "over"):
        rows = []
        for row in group:
            champion = best[part, task, int(row["shots"]), metric, over]
            if champion in (row["method"], row["other"]):
                rows.append(_against(row, champion))
        lines += [f"## {task}{PARTS[part]}: {TITLES[metric]}, over {over}", ""]
        lines += _markdown(
            ["shots", "best", "other", "n", "difference", "95 % interval", "t", "Holm", "Wilcoxon"], rows
        )
    return "\n".join(lines)


def _against(row: Row, champion: str) -> list[str]:
    sign = 1.0 if row["method"] == champion else -1.0
    other = row["other"] if sign > 0 else row["method"]
    ends = [] if row["low"] == "" else sorted((sign * float(row["low"]), sign * float(row["high"])))
    interval = f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else ""
    tests = [
        "" if row[name] == "" else f"{float(row[name]):.3g}" for name in ("t_p", "t_p_holm", "wilcoxon_p")
    ]
    difference = f"{sign * float(row['difference']):+.4f}"
    return [str(row["shots"]), champion, str(other), str(row["count"]), difference, interval, *tests]


def _best(summary: Sequence[Row]) -> dict[tuple[str, str, int, str, str], str]:
    """The method with the best mean of every part, data set, shots, metric and units."""
    best: dict[tuple[str, str, int, str, str], tuple[float, str]] = {}
    for row in summary:
        metric = str(row["metric"])
        place = (str(row["part"]), str(row["task"]), int(row["shots"]), metric, str(row["over"]))
        value = float(row["mean"]) if MORE_IS_BETTER[metric] else -float(row["mean"])
        if place not in best or value > best[place][0]:
            best[place] = value, _method(row)
    return {place: method for place, (_, method) in best.items()}


def _mean(row: Row) -> str:
    half = "" if row["low"] == "" else f" ± {float(row['high']) - float(row['mean']):.3f}"
    return f"{float(row['mean']):.3f}{half}"


def _method(row: Row) -> str:
    return named((str(row["model"]), str(row["engine"])))


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def _grouped(rows: Sequence[Row], *columns: str) -> list[tuple[tuple[str, ...], list[Row]]]:
    """Rows by the values of `columns`, in the order in which those first come."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[name]) for name in columns), []).append(row)
    return list(found.items())
