"""One to four images per class, and support labels that are wrong: which engine bears it?

    python analysis/extreme_few_shot.py digits digits_rotated
    python analysis/extreme_few_shot.py FEATURES.npz --models linear_probe clap tip_adapter

Of the support labels a share is replaced by another class, drawn at random; the labels that are wrong at a
small share are wrong at a larger one. Nobody tells the engines: prior variances and predictives are chosen
from the same wrong labels. zero_shot learns none of them. Writes
analysis/results/extreme_few_shot_<tasks>.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import SEEDS, arm_names, hardware, interval, markdown, said, scores, write_study

import bayes_clip as bc
from bayes_clip.progress import track
from bayes_clip.report.style import house_style

SHOTS, NOISES = (1, 2, 3, 4), (0.0, 0.1, 0.2, 0.4)
ENGINES = ("sgd", "map", "ekf", "laplace")
MODELS = ("linear_probe",)


def with_wrong_labels(task: bc.Task, share: float, seed: int) -> bc.Task:
    """The task with `share` of its support labels replaced by another class, uniformly."""
    labels, generator = task.support_labels.clone(), np.random.default_rng([seed, 1])
    order = torch.from_numpy(generator.permutation(len(labels)))
    steps = torch.from_numpy(generator.integers(1, task.num_classes, len(labels)))
    wrong = order[: round(share * len(labels))]
    labels[wrong] = (labels[wrong] + steps[wrong]) % task.num_classes
    return replace(task, support_labels=labels)


def study(
    tasks: Sequence[bc.Task],
    models: Sequence[str],
    engines: Sequence[str],
    shots: Sequence[int],
    noises: Sequence[float],
    seeds: Sequence[int],
) -> tuple[pd.DataFrame, list[str]]:
    """A row for every task, shots, share of wrong labels, draw and arm; and what was refused and why."""
    rows, refused = [], []
    for task, count, noise, seed in track(list(product(tasks, shots, noises, seeds)), "Few and wrong labels"):
        drawn = with_wrong_labels(bc.few_shot(task, count, seed), noise, seed)
        place = {"task": task.name, "shots": count, "wrong": noise, "seed": seed}
        for model, engine in [("linear_probe", "zero_shot"), *product(models, engines)]:
            try:
                fitted = bc.fit(drawn, bc.FitSettings(model=model, engine=engine, seed=seed))
            except bc.UserError as error:
                refused.append(f"{task.name}, {model} under {engine}: {error}")
                continue
            own = scores(fitted.posterior, task)
            chosen = {"prior_variance": fitted.tuned.prior_variance, "fit_seconds": fitted.seconds}
            rows.append({**place, "model": model, "engine": engine, **own, **chosen})
    table = pd.DataFrame(rows)
    table["arm"] = arm_names(table)
    return table, list(dict.fromkeys(refused))


def above_zero_shot(table: pd.DataFrame) -> pd.DataFrame:
    """Every row with its accuracy and NLL above zero-shot's on the same draw."""
    key = ["task", "shots", "wrong", "seed"]
    reference = table[table["engine"] == "zero_shot"].set_index(key)[["accuracy", "nll"]].add_suffix("_zero")
    ours = table[table["engine"] != "zero_shot"].join(reference, on=key)
    return ours.assign(
        accuracy_above=ours["accuracy"] - ours["accuracy_zero"], nll_above=ours["nll"] - ours["nll_zero"]
    )


def summary(table: pd.DataFrame) -> str:
    """Means with 95 % intervals over the draws, as Markdown."""
    rows = [
        [*place, said(part["accuracy"]), said(part["nll"]), said(part["ece"])]
        for place, part in table.groupby(["task", "shots", "wrong", "arm"], sort=False)
    ]
    return markdown(["task", "shots", "wrong labels", "arm", "accuracy", "NLL", "ECE"], rows)


def conclusions(table: pd.DataFrame) -> str:
    """Where each arm falls below zero-shot, and which is best where."""
    above = above_zero_shot(table)
    cells = above.groupby(["arm", "task", "shots", "wrong"], sort=False)[
        ["accuracy_above", "nll_above"]
    ].mean()
    lines = []
    for arm, part in cells.groupby(level=0, sort=False):
        worse = part["nll_above"] > 0
        lines.append(
            f"- `{arm}`: NLL above zero-shot's in {int(worse.sum())} of {len(part)} cells (task x shots x "
            f"wrong labels), worst {part['nll_above'].max():+.3f}; accuracy below it in "
            f"{int((part['accuracy_above'] < 0).sum())}, worst {part['accuracy_above'].min():+.3f}."
        )
    for wrong, part in cells.groupby(level=3):
        best = part["nll_above"].unstack(0).mean()
        lines.append(
            f"- {100 * wrong:g} % wrong: lowest NLL on average `{best.idxmin()}` ({best.min():+.3f} against "
            f"zero-shot), highest `{best.idxmax()}` ({best.max():+.3f})."
        )
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """NLL by share of wrong labels: a row for each task, a column for each number of shots."""
    tasks, shots = list(dict.fromkeys(table["task"])), sorted(set(table["shots"]))
    with house_style():
        size = (3.2 * len(shots), 3.0 * len(tasks))
        figure, axes = plt.subplots(len(tasks), len(shots), figsize=size, squeeze=False, sharey="row")
        for (row, task), (column, count) in product(enumerate(tasks), enumerate(shots)):
            panel = axes[row][column]
            ours = table[(table["task"] == task) & (table["shots"] == count)]
            for arm, part in ours.groupby("arm", sort=False):
                centre, width = np.array(part.groupby("wrong")["nll"].apply(interval).tolist()).T
                panel.errorbar(
                    sorted(set(part["wrong"])), centre, np.nan_to_num(width), marker="o", label=arm
                )
            panel.set(title=f"{task}, {count} shots", xlabel="share of wrong labels", yscale="log")
            panel.set_ylabel("query NLL (nats)" if column == 0 else "")
        axes[0][0].legend(fontsize=6)
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=["digits", "digits_rotated"])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--wrong", type=float, nargs="+", default=NOISES)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    settings = (asked.models, asked.engines, asked.shots, asked.wrong, asked.seeds)
    table, refused = study(tasks, *settings)
    head = (
        f"Query scores, mean ± 95 % interval over seeds {list(asked.seeds)}; every choice made from the "
        f"support set with its wrong labels. Run on {hardware()}.\n\n"
    )
    text = head + conclusions(table) + "\n\n" + summary(table)
    text += "".join(f"\n\nLeft out: {each}" for each in refused)
    stem = "_".join(["extreme_few_shot", *(task.name for task in tasks)])
    write_study(stem, {"": table}, text, draw(table))


if __name__ == "__main__":
    main()
