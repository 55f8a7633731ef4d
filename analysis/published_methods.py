"""Published methods and their Bayesian variants on feature tasks, with paired intervals against the first.

    python -m analysis.published_methods DTD.npz CALTECH.npz --out runs/published

Hyper-parameters come from the support set alone (or are published defaults). The table of fits is kept in
`--out` and grows cell by cell: stopped, the same command goes on. Programs that are no linear heads are
trained as published alone, see FLAT. Writes
analysis/results/published_methods.csv (one row per fit), .md (who is first, and who within the paired 95 %
interval of the first) and .png.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import typer
from matplotlib.figure import Figure

from analysis.study_tools import hardware, markdown, write_study
from bayes_clip.data.dataset_root import DataSet
from bayes_clip.data.prepared import Draws, Reading, prepare
from bayes_clip.evaluation.paired import t_interval
from bayes_clip.evaluation.protocol import TABLE, Grid, run_protocol

SHOTS, SEEDS = (1, 4, 16), (0, 1, 2, 3, 4)
BAYESIAN = ("ekf", "laplace")
HEADS = ("linear_probe", "clap", "gda")
# No linear heads: with 47 classes the filter sees 2,209 logits of a shot jointly, and takes minutes. They
# are trained as published here, and under ekf and laplace on small problems (bayes-clip compare digits).
FLAT = ("task_residual", "clip_adapter", "tip_adapter", "clip_adapter_no_relu", "visual_projection")
METRICS = {"accuracy": True, "nll": False, "ece": False}  # whether more is better
METHOD = ["model", "engine"]


@dataclass(frozen=True)
class Standing:
    """A method at one place: its mean, and whether the first is better by more than the paired interval."""

    mean: float
    is_first: bool
    within: bool

    def __str__(self) -> str:
        text = f"{self.mean:.3f}"
        return f"**{text}**" if self.is_first else f"{text} =" if self.within else text


def grids() -> list[Grid]:
    """What is run: every method as published, and linear heads under the Bayesian engines."""
    return [
        Grid(HEADS, ("zero_shot", "sgd", "map", *BAYESIAN), SHOTS, SEEDS),
        Grid(FLAT, ("zero_shot", "sgd"), SHOTS, SEEDS),
    ]


def standings(rows: pd.DataFrame, metric: str) -> dict[tuple[str, str], Standing]:
    """Method -> where it stands among the rows of one task and number of shots, on the same draws."""
    table = rows.pivot_table(index="seed", columns=METHOD, values=metric).dropna(axis="columns")
    means = table.mean()
    first = means.idxmax() if METRICS[metric] else means.idxmin()
    found = {}
    for method in table.columns:
        behind = t_interval((table[first] - table[method]).to_numpy())
        within = method == first or (behind.low is not None and behind.low <= 0 <= (behind.high or 0))
        found[method] = Standing(float(means[method]), method == first, within)
    return found


def table_of(frame: pd.DataFrame, task: str) -> tuple[str, dict[tuple[str, str], int]]:
    """The table of one task, and at how many of its places each method is first or within the interval."""
    columns: list[dict[tuple[str, str], Standing]] = []
    header = ["method"]
    for shots in SHOTS:
        rows = frame[(frame.task == task) & (frame.shots == shots)]
        for metric in METRICS:
            columns.append(standings(rows, metric))
            header.append(f"{metric} {shots}")
    methods = sorted({method for column in columns for method in column})
    lines = [[" · ".join(method), *(str(column.get(method, "")) for column in columns)] for method in methods]
    count: dict[tuple[str, str], int] = defaultdict(int)
    for column in columns:
        for method, standing in column.items():
            count[method] += standing.within
    return markdown(header, lines), count


def conclusions(frame: pd.DataFrame) -> str:
    """Tables of all tasks, and what they say of the best Bayesian method."""
    places = len(SHOTS) * len(METRICS)
    parts = [
        "# Published methods and their Bayesian variants",
        f"Means over {len(SEEDS)} draws of the support set; hyper-parameters from the support set alone, or "
        "as published. Bold: first at that place. `=`: within the 95 % interval of the paired difference "
        "from the first (Student's t over draws). zero_shot of tip_adapter and gda are the training-free "
        "methods.",
    ]
    total: dict[tuple[str, str], int] = defaultdict(int)
    tasks = list(dict.fromkeys(frame.task))
    for task in tasks:
        table, count = table_of(frame, task)
        parts += [f"## {task}", table]
        for method, wins in count.items():
            total[method] += wins
    ranked = sorted(total, key=lambda method: -total[method])
    bayesian = [method for method in ranked if method[1] in BAYESIAN]
    parts.append("## First, or within the interval of the first")
    parts.append(
        markdown(
            ["method", f"places of {places * len(tasks)}"],
            [[" · ".join(method), total[method]] for method in ranked[:8]],
        )
    )
    parts.append(
        f"Of the Bayesian methods {' · '.join(bayesian[0])} stands best. " + losses(frame, bayesian[0])
    )
    parts.append("Default (linear_probe · ekf): " + losses(frame, ("linear_probe", "ekf")))
    parts.append(f"Seconds are in the CSV; measured on {hardware()}.")
    return "\n\n".join(parts)


def losses(frame: pd.DataFrame, method: tuple[str, str]) -> str:
    """Where the first is better by more than the interval, in words."""
    found = []
    for task in dict.fromkeys(frame.task):
        for shots in SHOTS:
            rows = frame[(frame.task == task) & (frame.shots == shots)]
            for metric in METRICS:
                column = standings(rows, metric)
                own = column.get(method)
                if own is None:
                    found.append(f"{task}, {shots} shots, {metric}: not run")
                elif not own.within:
                    first = next(name for name, standing in column.items() if standing.is_first)
                    found.append(
                        f"{task}, {shots} shots, {metric}: {own.mean:.3f} against {column[first].mean:.3f} "
                        f"({' · '.join(first)})"
                    )
    return "It loses nowhere." if not found else "It loses at: " + "; ".join(found) + "."


def picture(frame: pd.DataFrame) -> Figure:
    """Accuracy, NLL and ECE against shots, the methods that matter most."""
    shown = [
        "linear_probe · ekf",
        "linear_probe · map",
        "linear_probe · sgd",
        "clap · sgd",
        "gda · zero_shot",
    ]
    shown += ["tip_adapter · sgd", "clip_adapter · sgd", "linear_probe · zero_shot"]
    frame = frame.assign(method=frame.model + " · " + frame.engine)
    frame = frame[frame.method.isin(shown)]
    tasks = list(dict.fromkeys(frame.task))
    figure, axes = plt.subplots(len(tasks), len(METRICS), figsize=(12, 3.4 * len(tasks)), squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for axis, metric in zip(line, METRICS, strict=True):
            sns.lineplot(
                frame[frame.task == task],
                x="shots",
                y=metric,
                hue="method",
                style="method",
                hue_order=shown,
                style_order=shown,
                palette="colorblind",
                markers=True,
                errorbar="sd",
                ax=axis,
                legend=axis is axes[0, -1],
            )
            axis.set(xscale="log", xticks=SHOTS, xticklabels=SHOTS, title=f"{task}, {metric}", ylabel="")
            if metric == "nll":  # some methods are so sure that they would hide all others
                axis.set_ylim(top=float(frame[frame.task == task].nll.quantile(0.9)) * 1.1)
    sns.move_legend(axes[0, -1], "upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    figure.tight_layout()
    return figure


def main(
    tasks: list[Path] = typer.Argument(help="feature tasks (.npz or .safetensors)"),  # noqa: B008
    out: Path = typer.Option(Path("runs/published"), help="where the fits are kept"),  # noqa: B008
    run: bool = typer.Option(True, help="fit what is missing; else tables of what is there"),
) -> None:
    """Run what is not there yet, then write the tables."""
    reading, draws = Reading(None), Draws(SHOTS, SEEDS)
    prepared = [prepare(DataSet(path.stem, path), None, reading, draws) for path in tasks if run]
    for grid in grids() if run else ():
        for failure in run_protocol(grid, prepared, out).failures:
            typer.echo(failure)
    frame = pd.read_csv(out / TABLE)
    write_study("published_methods", {"": frame}, conclusions(frame), picture(frame))


if __name__ == "__main__":
    typer.run(main)
