"""How well are wrong labels found? Labels flipped on purpose, and what `evaluation.suspects` makes of them.

    python analysis/label_noise.py digits digits_rotated [FEATURES.npz ...]

On each draw a share of the support labels is replaced by another class at random. A label is flagged where it
is more likely wrong than right, by folds of the support set alone. Precision: the share of flags that are
flips; recall: the share of flips that are flagged; false flags: the share of right labels flagged; share: the
share of mistakes that it estimates; average precision: of the order of suspicion, whatever the limit. Labels
that were wrong before count as right. Writes analysis/results/label_noise_<tasks>.csv and .md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from study_tools import hardware, markdown, said, write_study

import bayes_clip as bc
from bayes_clip.evaluation.suspects import doubt_labels
from bayes_clip.progress import track

SHOTS, SHARES, SEEDS = (4, 16), (0.0, 0.1, 0.2), (0, 1, 2)
MEASURES = ("flagged", "precision", "recall", "false_flags", "share", "average_precision")


def flipped(task: bc.Task, share: float, seed: int) -> tuple[bc.Task, np.ndarray]:
    """`task` with a share of its labels replaced by another class, and which rows (N,) these are."""
    generator = np.random.default_rng([seed, 1])
    labels = task.support_labels.numpy().copy()
    rows = generator.permutation(len(labels))[: round(share * len(labels))]
    labels[rows] = (labels[rows] + generator.integers(1, task.num_classes, len(rows))) % task.num_classes
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[rows] = True
    return replace(task, support_labels=torch.from_numpy(labels)), wrong


def measured(task: bc.Task, wrong: np.ndarray) -> dict[str, float]:
    """MEASURES of one draw; NaN where there is nothing to divide by."""
    doubts = doubt_labels(task)
    assert doubts is not None
    flags = np.zeros(len(wrong), dtype=bool)
    flags[doubts.suspects] = True
    hits = int((flags & wrong).sum())
    return {
        "flagged": float(flags.sum()),
        "precision": hits / flags.sum() if flags.any() else float("nan"),
        "recall": hits / wrong.sum() if wrong.any() else float("nan"),
        "false_flags": float((flags & ~wrong).sum() / (~wrong).sum()),
        "share": doubts.share,
        "average_precision": average_precision_score(wrong, doubts.wrong) if wrong.any() else float("nan"),
    }


def study(tasks: Sequence[bc.Task], shots: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
    """A row for every task, number of shots, share of flips and seed."""
    cells = [(t, k, share, seed) for t in tasks for k in shots for share in SHARES for seed in seeds]
    rows = []
    for task, count, share, seed in track(cells, "Flipping labels"):
        drawn, wrong = flipped(bc.few_shot(task, count, seed), share, seed)
        place = {"task": task.name, "shots": count, "flipped": share, "seed": seed, "labels": len(wrong)}
        rows.append({**place, **measured(drawn, wrong)})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Means over seeds ± half their 95 % interval, as Markdown."""
    header = ["task", "shots", "flipped", "labels", *(name.replace("_", " ") for name in MEASURES)]
    rows = []
    for (task, shots, share), part in table.groupby(["task", "shots", "flipped"], sort=False):
        cells = (part[name].dropna().tolist() for name in MEASURES)
        found = [said(values, 2) if values else "" for values in cells]
        rows.append([task, shots, share, f"{part['labels'].mean():.0f}", *found])
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", help="built-in tasks, folders, feature tasks")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    table = study(tasks, asked.shots, asked.seeds)
    head = (
        f"Flags where a label is more likely wrong than right; mean ± 95 % interval over seeds "
        f"{list(asked.seeds)}. Run on {hardware()}.\n\n"
    )
    write_study(
        "_".join(["label_noise", *(task.name for task in tasks)]), {"": table}, head + summary(table), None
    )


if __name__ == "__main__":
    main()
