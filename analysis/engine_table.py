"""Every engine on one or several tasks: the table of the README, and its picture.

    python analysis/engine_table.py digits digits_rotated --shots 4
    python analysis/engine_table.py FEATURES.npz --shots 1 4 16

Writes analysis/results/engines_<tasks>.csv (one row per fit), .md (means over the seeds) and .png (how novel
each engine finds the query set and pictures of no class, last task, first seed). Where the README has a place
for the table, between `<!-- engines_<tasks>: begin -->` and `: end -->`, the table is put there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd

import bayes_clip as bc
from bayes_clip.report.figures import draw

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent / "README.md"
PICTURED = ("map", "ekf", "laplace")
SCORES = {"accuracy": "accuracy", "nll": "NLL", "ece": "ECE", "ood_auroc": "OOD AUROC"}


def markdown(comparison: bc.Comparison) -> str:
    """Means over the seeds, ± the standard error where there are several; seconds of a fit."""
    lines = [
        "| task | shots | engine | " + " | ".join(SCORES.values()) + " | fit s |",
        "|---" * (4 + len(SCORES)) + "|",
    ]
    for row in bc.summarise(comparison):
        cells = [str(row["task"]), str(row["shots"] or "all"), str(row["engine"])]
        cells += [number(row[name], row[f"{name}_se"]) for name in SCORES]
        lines.append("| " + " | ".join([*cells, f"{row['fit_seconds']:.1f}"]) + " |")
    return "\n".join(lines)


def number(mean: object, error: object) -> str:
    """`0.951 ± 0.004`, or as much of it as is known."""
    if not isinstance(mean, float):
        return ""
    return f"{mean:.3f}" + (f" ± {error:.3f}" if isinstance(error, float) else "")


def picture(comparison: bc.Comparison, path: Path) -> None:
    """The novelty histograms of the last task, for the engines in PICTURED."""
    last = comparison.runs[-1].row["task"]
    chosen = [run for run in comparison.runs if run.row["task"] == last and run.row["engine"] in PICTURED]
    for drawn in draw(replace(comparison, runs=tuple(chosen))):
        if drawn.name.startswith("novelty"):
            drawn.figure.savefig(path, dpi=110)


def into_readme(name: str, table: str) -> None:
    """Put the table between its marks in the README, if they are there."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    text = README.read_text(encoding="utf-8")
    if begin in text:
        before, rest = text.split(begin)
        README.write_text(before + begin + table + end + rest.split(end)[1], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", help="feature tasks, image folders or built-in tasks")
    parser.add_argument("--shots", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    comparison = bc.compare(tasks, shots=asked.shots, seeds=asked.seeds)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / ("engines_" + "_".join(task.name for task in tasks))
    pd.DataFrame([run.row for run in comparison.runs]).to_csv(
        stem.with_suffix(".csv"), index=False, float_format="%.6g"
    )
    table = markdown(comparison) + "\n"
    stem.with_suffix(".md").write_text(table, encoding="utf-8")
    into_readme(stem.name, table)
    picture(comparison, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
