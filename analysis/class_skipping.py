"""Would it pay to skip the classes that a label hardly moves?

    python analysis/class_skipping.py FEATURES.npz

The exact filter learns every label of a random stream; at each, classes whose probability at the label's
mode is below a bound are left as they are. For every bound: which part of all (label, class) pairs that
skips, and how far it moves the probabilities of the query set. Writes
analysis/results/class_skipping_<task>.csv and .md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import bayes_clip as bc
from bayes_clip.gaussian import ClassBlock
from bayes_clip.inference.batches import row_order
from bayes_clip.kernels.recursion import mode_of_label, row_by_row

SHOTS, VARIANCE, BLOCK = 16, 5e-3, 64
BOUNDS = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
RESULTS = Path(__file__).parent / "results"


def filtered(task: bc.Task, bound: float, seed: int = 0) -> tuple[Tensor, float]:
    """Query probabilities (M, C) after the stream, and the part of (label, class) pairs that was skipped."""
    design = (task.logit_scale * task.support_features).double()
    text = task.text_features.double()
    belief = ClassBlock.from_prior(text, torch.full_like(text, VARIANCE))
    order, skipped = row_order(task.support_labels, "random", seed), 0
    for rows in order.split(BLOCK):
        labels = task.support_labels[rows].tolist()
        projection = belief.project(design[rows])

        def row(
            variance: np.ndarray, mean: np.ndarray, index: int, labels: list[int] = labels
        ) -> tuple[np.ndarray, np.ndarray]:
            nonlocal skipped
            dual, weight = mode_of_label(variance, mean, labels[index])
            small = -dual < bound  # the dual of another class is minus its probability
            small[labels[index]] = False
            skipped += int(small.sum())
            return np.where(small, 0, dual), np.where(small, 0, weight)

        recursed = row_by_row(projection.gram.blocks, projection.logits, row)
        belief = belief.condition(projection, *recursed.combined())
    logits = task.logit_scale * task.query_features.double() @ belief.mean.mT
    return logits.softmax(-1), skipped / (len(order) * len(text))


def study(task: bc.Task) -> pd.DataFrame:
    """One row per bound."""
    exact, _ = filtered(task, 0.0)
    rows = []
    for bound in BOUNDS:
        found, skipped = filtered(task, bound)
        error = float((found - exact).abs().max())
        rows.append({"bound": bound, "skipped_share": skipped, "largest_error_in_probability": error})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, name: str) -> str:
    """The table as Markdown."""
    lines = [
        f"{name}, {SHOTS} shots, one draw, prior variance {VARIANCE:g}, float64; labels one at a time in",
        "random order, every one at its mode (`iterated`).",
        "",
        "| classes below this probability are skipped | pairs skipped | largest change of a probability |",
        "|---|---|---|",
    ]
    for row in table.itertuples():
        lines.append(f"| {row.bound:g} | {row.skipped_share:.1%} | {row.largest_error_in_probability:.1e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("features", help="a feature task with text features")
    task = bc.few_shot(bc.load_task(parser.parse_args().features), SHOTS, 0)
    table = study(task)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / f"class_skipping_{task.name}.csv", index=False)
    text = summary(table, task.name)
    (RESULTS / f"class_skipping_{task.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
