"""How much the filter's answer depends on P₀, Q, R and the order of its batches, one changed at a time.

    python analysis/sensitivity.py digits digits_rotated
    python analysis/sensitivity.py FEATURES.npz --shots 1 4 16

Reference: `linear_probe` under the default filter, with the prior variance that the support set itself chose.

    P0     that prior variance times a factor
    Q      process noise after every batch, as a multiple of P₀ (nothing moves here: it can only hurt)
    R      every label counted m times in its batch: the curvature of its likelihood times m, noise R / m
    order  balanced, random and class order (as folders come), in batches and one by one, refined or not

The softmax has no R of its own to set. As far as the mean goes, noise times m is the same as P₀ / m: a
likelihood to the power β under N(m, P) has the mode of the plain one under N(m, β P), and its covariance
divided by β (exact for the rule `iterated` in one batch; tested). So a factor on P₀ stands for one on 1/R.
Probabilities by plug-in; `averaged` is the NLL of the softmax averaged over the whole covariance. The R that
`kalman_clip` adapts on the way: analysis/paired_cosines.py. Writes analysis/results/sensitivity_<tasks>.csv,
.md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import SEEDS, hardware, interval, markdown, said, scores, write_study

import bayes_clip as bc
from bayes_clip.evaluation.metrics import nll
from bayes_clip.inference.batches import default_batch_size
from bayes_clip.predictive import closed_form
from bayes_clip.progress import track
from bayes_clip.report.style import house_style

FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
NOISES = (0.0, 1e-3, 1e-2, 1e-1, 1.0)
COUNTS = (1, 2, 4, 8)
ORDERS = {  # name: order, batch size (None: one shot of every class), passes
    "balanced batches": ("balanced", None, 1),
    "random batches": ("random", None, 1),
    "class order, batches": ("given", None, 1),
    "class order, batches, 2 passes": ("given", None, 2),
    "one by one, balanced": ("balanced", 1, 1),
    "one by one, random": ("random", 1, 1),
    "one by one, class order": ("given", 1, 1),
    "one by one, class order, 2 passes": ("given", 1, 2),
}
LOSES = 0.05  # nats above the reference from which a setting counts as broken


@dataclass(frozen=True)
class Arm:
    """One setting changed: which, its value for the axis of a figure, and the fit with it."""

    what: str
    name: str
    value: float
    task: bc.Task
    settings: bc.FitSettings


def arms(task: bc.Task, seed: int, variance: float) -> Iterator[Arm]:
    """The reference (P₀ times one) and every change of it."""
    reference = bc.FitSettings(prior_variance=variance, predictive="plug_in", seed=seed)
    for factor in FACTORS:
        yield Arm("P0", f"x {factor:g}", factor, task, replace(reference, prior_variance=factor * variance))
    for noise in NOISES:
        yield Arm("Q", f"{noise:g} x P0", noise, task, replace(reference, process_noise=noise))
    size = default_batch_size(task.num_classes)
    for count in COUNTS:
        again = torch.arange(len(task.support_labels)).repeat_interleave(count)
        counted = replace(reference, batch_size=count * size)
        yield Arm("R", f"/ {count}", 1 / count, task.with_support(again), counted)
    for number, (name, (order, batch_size, passes)) in enumerate(ORDERS.items()):
        settings = replace(reference, order=order, batch_size=batch_size, passes=passes)
        yield Arm("order", name, number, task, settings)


def measured(arm: Arm, task: bc.Task) -> dict[str, float]:
    """Scores on the query set: plug-in, and averaged over the covariance."""
    posterior = bc.fit(arm.task, arm.settings).posterior
    with torch.no_grad():
        mean, variance = posterior.logits.logit_moments(task.query_features)
    averaged = closed_form(mean.double(), variance.double()).numpy()
    return {**scores(posterior, task), "averaged": nll(averaged, task.query_labels.numpy())}


def study(tasks: Sequence[bc.Task], shots: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
    """A row for every task, number of shots, draw and arm, with what it has above the reference."""
    rows = []
    for task, count, seed in track(list(product(tasks, shots, seeds)), "Sensitivity"):
        few = bc.few_shot(task, count, seed)
        chosen = bc.fit(few, bc.FitSettings(seed=seed)).tuned.prior_variance
        place = {"task": task.name, "shots": count, "seed": seed, "chosen_variance": chosen}
        found = [(arm, measured(arm, few)) for arm in arms(few, seed, chosen)]
        standard = next(own for arm, own in found if arm.what == "P0" and arm.value == 1.0)
        for arm, own in found:
            above = {f"{name}_above": own[name] - standard[name] for name in own}
            rows.append({**place, "what": arm.what, "arm": arm.name, "value": arm.value, **own, **above})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Accuracy and NLL above the reference, mean ± 95 % interval over the draws."""
    rows = []
    for place, part in table.groupby(["task", "shots", "what", "arm"], sort=False):
        above = [said(part["accuracy_above"], signed=True), said(part["nll_above"], signed=True)]
        rows.append([*place, f"{part['nll'].mean():.3f}", *above, f"{part['averaged'].mean():.3f}"])
    header = ["task", "shots", "what", "arm", "NLL", "accuracy above", "NLL above", "averaged NLL"]
    return markdown(header, rows)


def conclusions(table: pd.DataFrame) -> str:
    """Which settings are harmless everywhere, and which are the worst."""
    lines = []
    means = table.groupby(["what", "arm", "task", "shots"], sort=False)["nll_above"].mean()
    worst = means.groupby(level=[0, 1], sort=False).max()
    for what in dict.fromkeys(table["what"]):
        ours = worst[what]
        harmless = [name for name, above in ours.items() if above <= LOSES]
        lines.append(
            f"- **{what}**: at most {LOSES} nats above the reference in every task and number of shots: "
            f"{', '.join(harmless) or 'none'}. Worst: {ours.idxmax()} ({ours.max():+.2f} nats)."
        )
    best = means.groupby(level=[0, 1], sort=False).mean()["P0"]
    lines.append(
        f"- On average over tasks and shots the best P₀ is {best.idxmin()} the chosen one "
        f"({best.min():+.3f} nats)."
    )
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """NLL above the reference by what is changed, a row for each task, a line for each number of shots."""
    tasks, whats = list(dict.fromkeys(table["task"])), list(dict.fromkeys(table["what"]))
    with house_style():
        figure, axes = plt.subplots(len(tasks), len(whats), figsize=(13, 3.2 * len(tasks)), squeeze=False)
        for (row, task), (column, what) in product(enumerate(tasks), enumerate(whats)):
            panel = axes[row][column]
            for shots, part in table[(table["task"] == task) & (table["what"] == what)].groupby("shots"):
                means = part.groupby("value")["nll_above"].apply(interval)
                values = np.array(means.index)
                if what == "Q":
                    values = np.maximum(values, NOISES[1] / 10)  # zero has no place on a logarithmic axis
                centre, width = np.array(means.tolist()).T
                panel.errorbar(values, centre, np.nan_to_num(width), marker="o", label=f"{shots} shots")
            panel.axhline(0, color="grey", linewidth=0.8)
            panel.set_yscale("symlog", linthresh=0.05)
            panel.set(title=f"{task}: {what}", ylabel="NLL above the reference" if column == 0 else "")
            if what == "order":
                panel.set_xticks(range(len(ORDERS)), list(ORDERS), rotation=60, ha="right", fontsize=6)
            else:
                panel.set_xscale("log")
        axes[0][0].legend()
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=["digits", "digits_rotated"])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    table = study(tasks, asked.shots, asked.seeds)
    head = (
        f"`linear_probe` under the default filter; mean ± 95 % interval over seeds {list(asked.seeds)}, "
        f"differences paired by seed. Run on {hardware()}.\n\n"
    )
    text = head + conclusions(table) + "\n\n" + summary(table)
    stem = "_".join(["sensitivity", *(task.name for task in tasks)])
    write_study(stem, {"": table}, text, draw(table))


if __name__ == "__main__":
    main()
