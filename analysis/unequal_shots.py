"""What becomes of rare classes? Half of the classes with one label, the others with up to thirty.

    python analysis/unequal_shots.py digits digits_rotated [FEATURES.npz ...]

Accuracy among query rows of rare and of frequent classes, and their mean, which counts all classes alike.
Arms: zero-shot; `map` and `ekf` with either class prior (support: each class as often as among the labels;
even: all alike) on the labels as they stand; and on one label of every class (--shots 1) without the rest.
Writes analysis/results/unequal_shots_<tasks>.csv and .md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from study_tools import hardware, markdown, said, write_study

import bayes_clip as bc
from bayes_clip.progress import track

SEEDS, MOST = (0, 1, 2), 30
MEASURES = ("rare", "frequent", "mean", "nll")
ARMS = (
    ("zero_shot", "support", None),
    ("map", "support", None),
    ("map", "even", None),
    ("map", "support", 1),
    ("ekf", "support", None),
    ("ekf", "even", None),
    ("ekf", "support", 1),
)


def unequal(task: bc.Task, seed: int, most: int = MOST) -> tuple[bc.Task, np.ndarray]:
    """`task` with one support row of half its classes and up to `most` of the rest; which are rare."""
    generator = np.random.default_rng(seed)
    labels, classes = task.support_labels.numpy(), task.num_classes
    rare = np.zeros(classes, dtype=bool)
    rare[generator.permutation(classes)[: classes // 2]] = True
    rows = [
        generator.permutation(np.flatnonzero(labels == label))[: 1 if rare[label] else most]
        for label in range(classes)
    ]
    return task.with_support(torch.from_numpy(np.concatenate(rows))), rare


def measured(posterior: bc.Posterior, task: bc.Task, rare: np.ndarray) -> dict[str, float]:
    """MEASURES on the query set; NLL (nats) is the mean of rare and frequent rows too."""
    probabilities, labels = (
        posterior.predict(task.query_rows).probabilities.numpy(),
        task.query_labels.numpy(),
    )
    right, of_rare = probabilities.argmax(1) == labels, rare[labels]
    cost = -np.log(probabilities[np.arange(len(labels)), labels])
    accuracy = float(right[of_rare].mean()), float(right[~of_rare].mean())
    nll = (cost[of_rare].mean() + cost[~of_rare].mean()) / 2
    return {"rare": accuracy[0], "frequent": accuracy[1], "mean": sum(accuracy) / 2, "nll": float(nll)}


def study(tasks: Sequence[bc.Task], seeds: Sequence[int]) -> pd.DataFrame:
    """A row for every task, arm and seed."""
    cells = [(task, seed, arm) for task in tasks for seed in seeds for arm in ARMS]
    rows = []
    for task, seed, (engine, prior, shots) in track(cells, "Fitting"):
        drawn, rare = unequal(task, seed)
        settings = bc.FitSettings(engine=engine, class_prior=prior)
        posterior = bc.fit(bc.few_shot(drawn, shots, seed), settings).posterior
        arm = (
            engine
            if engine == "zero_shot"
            else f"{engine}, {prior}"
            if shots is None
            else f"{engine}, 1 shot"
        )
        rows.append({"task": task.name, "arm": arm, "seed": seed, **measured(posterior, drawn, rare)})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Means over seeds ± half their 95 % interval, as Markdown."""
    header = ["task", "arm", "accuracy of rare", "of frequent", "mean", "NLL, mean"]
    rows = [
        [*place, *(said(part[name].tolist()) for name in MEASURES)]
        for place, part in table.groupby(["task", "arm"], sort=False)
    ]
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", help="built-in tasks, folders, feature tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    table = study(tasks, asked.seeds)
    head = (
        f"Half of the classes with one label, the others with up to {MOST}; mean ± 95 % interval over seeds "
        f"{list(asked.seeds)}. Run on {hardware()}.\n\n"
    )
    write_study(
        "_".join(["unequal_shots", *(task.name for task in tasks)]), {"": table}, head + summary(table), None
    )


if __name__ == "__main__":
    main()
