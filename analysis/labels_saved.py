"""How many labels does a good choice of pictures save? Suggestions against random choice and two usual rules.

    python analysis/labels_saved.py digits digits_rotated
    python analysis/labels_saved.py FEATURES.npz

One shot of every class is fitted (engine ekf, defaults); then batches are chosen from the rest of the support
set, their labels revealed and learned by one filter update each, until as many labels are known as there are
`SHOTS` for each class. Arms: random; highest entropy and smallest margin of the predicted probabilities; and
information, which is `bayes-clip suggest`. Every arm starts from the same shot of every class in a seed.
Query rows measure and choose nothing.

Labels to reach an accuracy: where the running maximum of the curve crosses it, between batches by straight
line, and the whole budget where it never does (counted). The accuracies are those that random choice reaches
on average with a half and with all of its labels. Writes analysis/results/labels_saved_<tasks>.csv, .md and
.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from itertools import product

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import hardware, interval, markdown, said, write_study
from torch import Tensor

import bayes_clip as bc
from bayes_clip.data.task import drawn_rows
from bayes_clip.evaluation.metrics import accuracy, nll
from bayes_clip.progress import track
from bayes_clip.report.style import house_style
from bayes_clip.streaming import Pace
from bayes_clip.suggesting import suggest

SEEDS, BATCH, SHOTS = tuple(range(10)), 10, 8
SHARES = {"half": 0.5, "all": 1.0}  # of the labels of random choice, whose accuracy is to be reached
Choice = Callable[[bc.Posterior, Tensor, int, np.random.Generator], list[int]]


def plug_in(posterior: bc.Posterior, features: Tensor) -> np.ndarray:
    """Probabilities (N, C) at the mean weights, float64."""
    program, inputs = posterior.logits.program, posterior.as_inputs(features)
    return program.logits(posterior.weights.mean, inputs).double().softmax(-1).numpy()


def by_chance(posterior: bc.Posterior, pool: Tensor, k: int, generator: np.random.Generator) -> list[int]:
    """Any k."""
    return generator.permutation(len(pool))[:k].tolist()


def by_entropy(posterior: bc.Posterior, pool: Tensor, k: int, generator: np.random.Generator) -> list[int]:
    """The k predictions of highest entropy."""
    probabilities = plug_in(posterior, pool)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-300))).sum(1)
    return np.argsort(-entropy, kind="stable")[:k].tolist()


def by_margin(posterior: bc.Posterior, pool: Tensor, k: int, generator: np.random.Generator) -> list[int]:
    """The k predictions whose two most probable classes are closest."""
    ranked = np.sort(plug_in(posterior, pool), axis=1)
    return np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")[:k].tolist()


def by_information(
    posterior: bc.Posterior, pool: Tensor, k: int, generator: np.random.Generator
) -> list[int]:
    """What `bayes-clip suggest` says."""
    return list(suggest(posterior, pool, k).rows)


ARMS: dict[str, Choice] = {
    "random": by_chance,
    "max entropy": by_entropy,
    "min margin": by_margin,
    "information": by_information,
}


def curve(task: bc.Task, arm: str, seed: int, batch: int, shots: int) -> list[dict[str, float]]:
    """Query scores after every batch of one arm and draw."""
    generator = np.random.default_rng([seed, 1])
    labels = task.support_labels.numpy()
    known = np.concatenate(drawn_rows(labels, task.num_classes, 1, seed))
    left = np.setdiff1d(np.arange(len(labels)), known)
    posterior = bc.fit(bc.few_shot(task, 1, seed), bc.FitSettings()).posterior
    start, count, points = time.process_time(), len(known), []
    budget = min(shots * task.num_classes, len(labels))
    while True:
        spent, query = time.process_time() - start, plug_in(posterior, task.query_features)
        truth = task.query_labels.numpy()
        scores = {"accuracy": accuracy(query, truth), "nll": nll(query, truth)}
        points.append({"labels": count, **scores, "seconds": spent})
        if count >= budget:
            return points
        size = min(batch, budget - count)
        chosen = ARMS[arm](posterior, task.support_features[torch.from_numpy(left)], size, generator)
        rows = np.sort(left[chosen])
        left, count = np.setdiff1d(left, rows), count + size
        revealed = task.with_support(torch.from_numpy(rows))
        posterior = bc.update(posterior, revealed, pace=Pace(order="given", batch_size=batch)).posterior


def study(
    tasks: Sequence[bc.Task], arms: Sequence[str], seeds: Sequence[int], batch: int, shots: int
) -> pd.DataFrame:
    """A row for every task, arm, seed and number of labels."""
    rows = []
    for task, seed, arm in track(list(product(tasks, seeds, arms)), "Labels saved"):
        points = curve(task, arm, seed, batch, shots)
        rows += [{"task": task.name, "arm": arm, "seed": seed, **point} for point in points]
    return pd.DataFrame(rows)


def labels_needed(labels: np.ndarray, accuracies: np.ndarray, target: float) -> float:
    """Where the running maximum of the accuracies (n,) crosses `target`; NaN where it does not."""
    best = np.maximum.accumulate(accuracies)
    after = int(np.searchsorted(best, target, side="left"))
    if after == len(best):
        return float("nan")
    if after == 0:
        return float(labels[0])
    share = (target - best[after - 1]) / (best[after] - best[after - 1])
    return float(labels[after - 1] + share * (labels[after] - labels[after - 1]))


def saved(table: pd.DataFrame) -> pd.DataFrame:
    """Labels to reach random choice's mean accuracy at each share of its labels, by task, arm and seed."""
    rows = []
    for task, part in table.groupby("task", sort=False):
        mean = part[part["arm"] == "random"].groupby("labels")["accuracy"].mean()
        last = int(mean.index[-1])
        for name, share in SHARES.items():
            target = float(np.interp(share * last, mean.index, mean))
            for (arm, seed), points in part.groupby(["arm", "seed"], sort=False):
                needed = labels_needed(points["labels"].to_numpy(), points["accuracy"].to_numpy(), target)
                row = {"task": task, "share": name, "target": target, "arm": arm, "seed": seed}
                rows.append(
                    {**row, "needed": last if np.isnan(needed) else needed, "never": np.isnan(needed)}
                )
    found = pd.DataFrame(rows)
    key = ["task", "share", "seed"]
    random = found[found["arm"] == "random"].set_index(key)["needed"].rename("by_random")
    joined = found.join(random, on=key)
    return joined.assign(saved=joined["by_random"] - joined["needed"])


def summary(table: pd.DataFrame) -> str:
    """Labels saved, accuracy and NLL along the curve, and seconds; mean ± 95 % interval over the seeds."""
    along = table.groupby(["task", "arm", "seed"], sort=False).agg(
        accuracy=("accuracy", "mean"),
        nll=("nll", "mean"),
        last=("accuracy", "last"),
        seconds=("seconds", "max"),
    )
    against = along - along.xs("random", level="arm").reindex(along.index.droplevel("arm")).to_numpy()
    needed, rows = saved(table), []
    names = [against.index.get_level_values(level) for level in ("task", "arm")]
    for (task, arm), part in along.groupby(level=[0, 1], sort=False):
        cells = [task, arm]
        for name in SHARES:
            own = needed[(needed["task"] == task) & (needed["arm"] == arm) & (needed["share"] == name)]
            never = int(own["never"].sum())
            cells.append(said(own["saved"], 1, signed=True) + (f" ({never} never)" if never else ""))
        gained = against[(names[0] == task) & (names[1] == arm)]
        cells += [said(gained["accuracy"], 4, signed=True), said(gained["nll"], 4, signed=True)]
        rows.append([*cells, said(part["last"]), f"{part['seconds'].mean():.1f}"])
    columns = [f"labels saved, accuracy of {name} of random's labels" for name in SHARES]
    gains = ["accuracy along the curve, above random", "NLL, above random"]
    return markdown(["task", "arm", *columns, *gains, "accuracy at the end", "processor seconds"], rows)


def conclusions(table: pd.DataFrame) -> str:
    """Where each arm saves labels for certain, costs labels, or neither."""
    lines = []
    needed = saved(table)
    for (task, share, arm), part in needed[needed["arm"] != "random"].groupby(
        ["task", "share", "arm"], sort=False
    ):
        mean, width = interval(part["saved"])
        verdict = "saves" if mean > width else "LOSES" if mean < -width else "no difference shown:"
        target, whole = part["target"].iloc[0], needed[(needed["task"] == task) & (needed["share"] == share)]
        random = whole[whole["arm"] == "random"]["needed"].mean()
        lines.append(
            f"- {task}, accuracy {target:.3f}: {arm} {verdict} {said(part['saved'], 0, signed=True)} of the "
            f"{random:.0f} labels that random choice takes ({mean / random:+.0%})."
        )
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """Accuracy by labels, mean and 95 % interval, a panel for each task."""
    tasks = list(dict.fromkeys(table["task"]))
    with house_style():
        figure, axes = plt.subplots(1, len(tasks), figsize=(4.6 * len(tasks), 3.6), squeeze=False)
        for panel, task in zip(axes[0], tasks, strict=True):
            for arm, part in table[table["task"] == task].groupby("arm", sort=False):
                grouped = part.groupby("labels")["accuracy"].apply(interval)
                centre, width = np.array(grouped.tolist()).T
                (line,) = panel.plot(grouped.index, centre, label=arm)
                low, high = centre - np.nan_to_num(width), centre + np.nan_to_num(width)
                panel.fill_between(grouped.index, low, high, color=line.get_color(), alpha=0.15)
            panel.set(title=task, xlabel="labels", ylabel="query accuracy")
        axes[0][0].legend(fontsize=7)
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=["digits", "digits_rotated"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--shots", type=int, default=SHOTS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    table = study(tasks, asked.arms, asked.seeds, asked.batch, asked.shots)
    head = (
        f"From one shot of every class to {asked.shots} on average, batches of {asked.batch}, one filter "
        f"update each; plug-in predictions; mean ± 95 % interval over seeds {list(asked.seeds)}, paired with "
        f"random choice. Arms that never reach an accuracy count with the whole budget. Processor seconds of "
        f"one curve on {hardware()}.\n\n"
    )
    stem = "_".join(["labels_saved", *(task.name for task in tasks)])
    text = head + conclusions(table) + "\n\n" + summary(table)
    write_study(stem, {"": table}, text, draw(table))


if __name__ == "__main__":
    main()
