"""Kalman updates against gradient descent: what a label buys, and what a second buys, on one linear head.

    python analysis/kalman_against_gradient_descent.py                (the built-in digits)
    python analysis/kalman_against_gradient_descent.py FEATURES.npz

A stream of labels, one shot of every class a batch, is learned from zero-shot CLIP on by

    filter, class_block | diagonal      the Kalman filter, rule `expected`; keeps a covariance and no label
    sgd, adam, adamw                    one gradient step a batch; keeps no label
    ..., replay                         20 gradient steps a batch on all labels so far; keeps every label

Each has one number to choose over four decades: prior variance (five values) or learning rate (nine). It is
chosen by the NLL with which the stream itself was predicted, each batch before it was learned: no query label
is looked at. The best value on the query set is told too, as what hindsight would give. Probabilities are
those at the mean of the weights; `..., averaged` are the filter's own, over its covariance, with the prior
variance that they choose. Seconds are those of learning at the chosen value alone, of one processor, so that
other work on the machine does not count. Writes, in analysis/results,
kalman_against_gradient_descent_<task>.csv, _grid.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from stream_learners import Stream, learners, stream_of
from study_tools import SEEDS, hardware, interval, markdown, said, write_study
from torch import Tensor

import bayes_clip as bc
from bayes_clip.progress import track
from bayes_clip.report.style import house_style
from bayes_clip.threads import one_thread

REFERENCE = "filter, class_block"
AVERAGED = ", averaged"
NEAR = 0.1  # nats above the best value of the grid, within which another value is as good


def measured(stream: Stream, arm: str, value: float, wanted: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """Arm -> a row after each number of batches, 0 to all: query scores, and the NLL of the batch to come.

    A filter is two arms: by the mean of its weights, and averaged over their covariance. Query scores after
    every batch are taken of the arms `wanted`, of others at the end alone.
    """
    learner, _ = learners()[arm]
    rows: dict[str, list[dict[str, float]]] = {}
    labels, seconds = 0, 0.0
    for step, (told, spent) in enumerate(learner(stream, value)):
        seconds += spent
        ways = {arm: told.predict} | ({arm + AVERAGED: told.averaged} if told.averaged else {})
        for name, predict in ways.items():
            row = {"labels": labels, "seconds": seconds}
            if name in wanted or step == len(stream.labels):
                row |= scores(predict(stream.queries), stream.answers)
            if step < len(stream.labels):
                row["next_nll"] = scores(predict(stream.design[step]), stream.labels[step])["nll"]
            rows.setdefault(name, []).append(row)
        labels += len(stream.labels[step]) if step < len(stream.labels) else 0
    return {name: pd.DataFrame(own) for name, own in rows.items()}


def scores(log_probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and NLL (nats) of log probabilities (N, C)."""
    right = log_probabilities.argmax(-1) == labels
    picked = log_probabilities.double().gather(1, labels[:, None])
    return {"accuracy": float(right.double().mean()), "nll": -float(picked.mean())}


def study(task: bc.Task, shots: int, seeds: list[int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows at the chosen value by seed, arm and labels seen; and the ends of all values of the grid."""
    chosen, ends = [], []
    plan = [(seed, arm) for seed in seeds for arm in learners()]
    for seed, learner in track(plan, f"Streams of {task.name}"):
        stream = stream_of(bc.few_shot(task, shots, seed), seed)
        with one_thread():
            runs = {float(value): measured(stream, learner, float(value)) for value in learners()[learner][1]}
        for arm in next(iter(runs.values())):
            ahead = {value: run[arm]["next_nll"].mean() for value, run in runs.items()}
            best = min(ahead, key=lambda value: ahead[value] if np.isfinite(ahead[value]) else np.inf)
            place = {"task": task.name, "seed": seed, "arm": arm}
            with one_thread():
                again = measured(stream, learner, best, [arm])[arm]
            chosen.append(again.assign(**place, value=best))
            for value, run in runs.items():
                last = run[arm].iloc[-1][["accuracy", "nll"]].to_dict()
                ends.append(
                    {**place, "value": value, "chosen": value == best, "next_nll": ahead[value], **last}
                )
    return pd.concat(chosen, ignore_index=True), pd.DataFrame(ends)


def path_of(table: pd.DataFrame, arm: str, column: str) -> pd.DataFrame:
    """Seeds x labels seen."""
    return table[table["arm"] == arm].pivot_table(index="seed", columns="labels", values=column)


def near_best(grid: pd.DataFrame, arm: str) -> str:
    """How many of its values end within 0.1 nats of the best, on the average over seeds."""
    means = grid[grid["arm"] == arm].groupby("value")["nll"].mean()
    return f"{int((means <= means.min() + NEAR).sum())} of {len(means)}"


def summary(table: pd.DataFrame, grid: pd.DataFrame) -> str:
    """One row per arm: along the stream, at its end, in hindsight, seconds, how much the choice matters."""
    header = ("arm", "accuracy, stream", "NLL, stream", "accuracy, end", "NLL, end", "NLL, end, in hindsight")
    rows = []
    for arm in table["arm"].unique():
        paths = [path_of(table, arm, column) for column in ("accuracy", "nll")]
        along, ends = [said(mean_of(path)) for path in paths], [said(path.iloc[:, -1]) for path in paths]
        hindsight = said(grid[grid["arm"] == arm].groupby("seed")["nll"].min())
        seconds = f"{path_of(table, arm, 'seconds').iloc[:, -1].mean():.3g}"
        rows.append((arm, *along, *ends, hindsight, seconds, near_best(grid, arm)))
    return markdown((*header, "seconds", f"values within {NEAR:g} nats"), rows)


def mean_of(path: pd.DataFrame) -> pd.Series:
    """Average of a path along the stream, after every batch; one number per seed."""
    return path.iloc[:, 1:].mean(axis=1)


def compared(table: pd.DataFrame, arm: str) -> str:
    """Accuracy and NLL of an arm along the stream, less those of the reference, paired by seed."""
    parts = []
    for column, digits, better in (("accuracy", 3, 1), ("nll", 3, -1)):
        theirs, ours = (mean_of(path_of(table, name, column)) for name in (arm, REFERENCE))
        mean, width = interval(theirs - ours)
        verdict = "no telling apart" if not abs(mean) > width else "better" if mean * better > 0 else "worse"
        parts.append(f"{column} {said(theirs - ours, digits, signed=True)} ({verdict})")
    return ", ".join(parts)


def reached(table: pd.DataFrame, arm: str) -> str:
    """When, in seconds of its own, an arm's mean NLL reaches what the reference ends at; empty: never."""
    goal = path_of(table, REFERENCE, "nll").iloc[:, -1].mean()
    losses, seconds = (path_of(table, arm, column).mean() for column in ("nll", "seconds"))
    there = losses <= goal
    return f"{seconds[there].iloc[0]:.2g} s" if there.any() else ""


def conclusions(table: pd.DataFrame, grid: pd.DataFrame) -> str:
    """Half a page, from the numbers alone."""
    others = [arm for arm in table["arm"].unique() if arm != REFERENCE]
    streams = {arm: mean_of(path_of(table, arm, "nll")).mean() for arm in others}
    descents = [arm for arm in others if "filter" not in arm]
    replays = [arm for arm in descents if "replay" in arm]
    best = [
        min(arms, key=lambda arm: streams[arm])
        for arms in ([arm for arm in descents if arm not in replays], replays)
    ]
    spent = path_of(table, REFERENCE, "seconds").iloc[:, -1].mean()
    in_time = [f"`{arm}` after {reached(table, arm)}" for arm in others if reached(table, arm)]
    spreads = "; ".join(f"`{arm}` {near_best(grid, arm)}" for arm in grid["arm"].unique())
    quick = path_of(table, best[0], "seconds").iloc[:, -1].mean()
    lines = (
        "## Conclusions",
        "",
        f"Compared with `{REFERENCE}`, average along the stream, paired by seed:",
        "",
        f"- **Per label, no label kept**: the best by NLL is `{best[0]}`: {compared(table, best[0])}.",
        f"- **Per label, all labels kept**: the best by NLL is `{best[1]}`: {compared(table, best[1])}.",
        f"- **The diagonal filter**: {compared(table, 'filter, diagonal')}.",
        f"- **Averaging over the covariance** as it is (fits of the package scale it by folds of the support "
        f"set first): {compared(table, REFERENCE + AVERAGED)}.",
        f"- **Per second**: `{REFERENCE}` takes {spent:.2g} s for the stream and `{best[0]}` {quick:.2g} s. "
        f"The mean NLL that the filter ends at is reached by {'; '.join(in_time) or 'none of the others'}.",
        f"- **The one number**: values of the grid that end within {NEAR:g} nats of the best: {spreads}.",
        "- **Not shown**: schedules of the rate, more steps a batch, batches of less than one shot of every "
        "class. The filter keeps C D² numbers (class_block) or C D (diagonal) and no label; replay keeps "
        "every label.",
    )
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """Accuracy and NLL against labels seen, and against seconds; means over seeds."""
    with house_style():
        figure = Figure(figsize=(11, 7), layout="constrained")
        axes = figure.subplots(2, 2)
        for index, arm in enumerate(table["arm"].unique()):
            dashes = "--" if "replay" in arm else ":" if AVERAGED in arm else "-"
            style = {"color": f"C{index}", "linestyle": dashes, "label": arm}
            seconds = path_of(table, arm, "seconds").mean()
            for row, column in enumerate(("accuracy", "nll")):
                means = path_of(table, arm, column).mean()
                axes[row, 0].plot(means.index, means, marker=".", **style)
                axes[row, 1].plot(seconds.iloc[1:], means.iloc[1:], marker=".", **style)
                axes[row, 0].set(xlabel="labels seen", ylabel=column)
                axes[row, 1].set(xlabel="seconds of learning", ylabel=column, xscale="log")
        zero_shot = path_of(table, REFERENCE, "nll").iloc[:, 0].mean()
        for one in axes[1]:
            one.set_ylim(top=1.3 * zero_shot)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
        return figure


def write(task: bc.Task, table: pd.DataFrame, grid: pd.DataFrame, shots: int) -> None:
    """The tables, the text and the figure."""
    seeds = table["seed"].unique().tolist()
    head = (
        f"{task.name}: {shots} batches of one shot of each of {task.num_classes} classes, seeds {seeds}; "
        "mean ± 95 % interval. Stream: average after every batch. Seconds of one processor: "
        f"{hardware()}.\n\n"
    )
    text = head + summary(table, grid) + "\n\n" + conclusions(table, grid)
    stem = f"kalman_against_gradient_descent_{task.name}"
    write_study(stem, {"": table, "_grid": grid}, text, draw(table))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=["digits"], help="feature files, or built-in tasks")
    parser.add_argument("--shots", type=int, default=16, help="batches in the stream")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    asked = parser.parse_args()
    for name in asked.tasks:
        task = bc.load_task(name)
        write(task, *study(task, asked.shots, asked.seeds), asked.shots)


if __name__ == "__main__":
    main()
