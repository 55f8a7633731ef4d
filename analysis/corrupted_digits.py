"""Does calibration survive worse pictures? Accuracy, NLL, ECE and novelty by severity of eight corruptions.

    python analysis/corrupted_digits.py digits

Fitted on clean support pictures, 4 shots, defaults; asked about query pictures that are corrupted
(`bayes_clip.data.corruptions`) with severities 0 (clean) to 5. Arms: ekf, laplace, map, and map at the fixed
prior variance that is best on the clean query set, which nobody could choose. Novelty: the AUROC with which
the arm's own novelty score tells corrupted pictures from clean ones. Growth: mean over severities 1-5 less
the clean value, seed by seed. Writes analysis/results/corrupted_digits_<tasks>.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import hardware, interval, markdown, said, write_study
from torch import Tensor

import bayes_clip as bc
from bayes_clip.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted_pictures
from bayes_clip.evaluation.metrics import accuracy, auroc, ece, nll
from bayes_clip.progress import track
from bayes_clip.report.style import house_style

ARMS = ("ekf", "laplace", "map")
ORACLE = "map, best fixed"
GRID = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)  # s² v, among which the oracle chooses
SEEDS, SHOTS = tuple(range(10)), 4


@dataclass(frozen=True)
class Fitted:
    """One arm on one draw, and its novelty scores of the clean query pictures."""

    arm: str
    seed: int
    posterior: bc.Posterior
    clean_novelty: np.ndarray


def fitted_arms(task: bc.Task, shots: int, seeds: Sequence[int]) -> list[Fitted]:
    """Every arm on every draw."""
    found = []
    for seed in seeds:
        drawn = bc.few_shot(task, shots, seed)
        posteriors = {arm: bc.fit(drawn, bc.FitSettings(engine=arm)).posterior for arm in ARMS}
        variances = [logit_variance / task.logit_scale**2 for logit_variance in GRID]
        fixed = [
            bc.fit(drawn, bc.FitSettings(engine="map", prior_variance=each)).posterior for each in variances
        ]
        posteriors[ORACLE] = min(fixed, key=lambda each: _asked(each, task.query_features, task)[0]["nll"])
        for arm, posterior in posteriors.items():
            found.append(Fitted(arm, seed, posterior, _asked(posterior, task.query_features, task)[1]))
    return found


def _asked(posterior: bc.Posterior, features: Tensor, task: bc.Task) -> tuple[dict[str, float], np.ndarray]:
    """Scores of what is said of the query rows with these features, and their novelty scores."""
    prediction, labels = posterior.predict(features), task.query_labels.numpy()
    probabilities = prediction.probabilities.numpy()
    scores = {
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "ece": ece(probabilities, labels),
    }
    return scores, prediction.novelty.numpy()


def study(tasks: Sequence[bc.Task], names: Sequence[str], shots: int, seeds: Sequence[int]) -> pd.DataFrame:
    """A row for every task, corruption, severity (0 once), arm and seed."""
    rows = []
    for task in tasks:
        arms, pictures = fitted_arms(task, shots, seeds), task.query_pictures
        if task.encoder is None or pictures is None:
            raise bc.UserError(f"{task.name}: has no pictures to corrupt; give a task of pictures")
        places = [("none", 0), *((name, severity) for name in names for severity in SEVERITIES)]
        for name, severity in track(places, f"Corruptions of {task.name}"):
            features = task.query_features
            if severity:
                worse = corrupted_pictures(pictures, name, severity)
                features = task.encoder.encode_images(worse, description="Encoding", total=len(worse))
            for each in arms:
                scores, novelty = _asked(each.posterior, features, task)
                place = {"task": task.name, "corruption": name, "severity": severity, "arm": each.arm}
                told = auroc(each.clean_novelty, novelty)
                rows.append({**place, "seed": each.seed, **scores, "novelty_auroc": told})
    return pd.DataFrame(rows)


def by_severity(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the corruptions, by task, arm, seed and severity."""
    keys = ["task", "arm", "seed", "severity"]
    return table.groupby(keys, sort=False)[["accuracy", "nll", "ece", "novelty_auroc"]].mean().reset_index()


def growth(table: pd.DataFrame, metric: str) -> pd.Series:
    """Mean of `metric` over corruptions and severities 1-5 less the clean value, by task, arm and seed."""
    means = table.assign(clean=table["severity"] == 0).groupby(["task", "arm", "seed", "clean"], sort=False)
    values = means[metric].mean().unstack("clean")
    return values[False] - values[True]


def conclusions(table: pd.DataFrame) -> str:
    """Whether ECE and NLL grow less than MAP's, and where not."""
    lines = []
    for task in dict.fromkeys(table["task"]):
        own = table[table["task"] == task]
        for metric in ("ece", "nll"):
            grown = growth(own, metric).loc[task]
            for rival in ("map", ORACLE):
                less = (grown["ekf"] - grown[rival]).to_numpy()
                mean, width = interval(less)
                verdict = "less" if mean < 0 else "MORE"
                sure = "" if abs(mean) > width else " (within the interval of the draws)"
                ours, theirs = (
                    f"by {said(grown[arm], 4, signed=True)} to {_level(own, arm, metric):.3f}"
                    for arm in ("ekf", rival)
                )
                lines.append(
                    f"- {task}, {metric.upper()}: ekf's grows {ours}, that of {rival} {theirs}: {verdict}, "
                    f"by {said(less, 4, signed=True)}{sure}."
                )
        lost = [
            f"{name} ({difference:+.3f})"
            for name in dict.fromkeys(own["corruption"])
            if name != "none" and (difference := _against_map(own, name)) > 0
        ]
        where = ", ".join(lost) if lost else "at none"
        lines.append(f"- {task}: corruptions under which ekf's ECE grows more than map's: {where}.")
    return "\n".join(lines)


def _level(table: pd.DataFrame, arm: str, metric: str) -> float:
    """Mean over corruptions, severities 1-5 and draws."""
    return float(table[(table["arm"] == arm) & (table["severity"] > 0)][metric].mean())


def _against_map(table: pd.DataFrame, name: str) -> float:
    grown = growth(table[table["corruption"].isin(["none", name])], "ece").groupby("arm").mean()
    return float(grown["ekf"] - grown["map"])


def summary(table: pd.DataFrame) -> str:
    """Means over corruptions at every severity, and each corruption's mean over severities, as Markdown."""
    means = by_severity(table)
    rows = [
        [*place, *(said(part[metric]) for metric in ("accuracy", "nll", "ece", "novelty_auroc"))]
        for place, part in means.groupby(["task", "severity", "arm"], sort=False)
    ]
    header = ["task", "severity", "arm", "accuracy", "NLL", "ECE", "AUROC of corrupted against clean"]
    single = table[table["severity"] > 0].groupby(["task", "corruption", "arm"], sort=False)
    parts = single[["accuracy", "nll", "ece", "novelty_auroc"]].mean()
    more = [[*place, *(f"{value:.3f}" for value in values)] for place, values in parts.iterrows()]
    header_of_each = ["task", "corruption, severities 1-5", *header[2:]]
    return markdown(header, rows) + "\n\n" + markdown(header_of_each, more)


def draw(table: pd.DataFrame) -> Figure:
    """Accuracy, ECE and AUROC by severity, mean and 95 % interval over draws."""
    tasks, means = list(dict.fromkeys(table["task"])), by_severity(table)
    panels = {"accuracy": "accuracy", "ece": "ECE", "novelty_auroc": "AUROC, corrupted against clean"}
    with house_style():
        figure, axes = plt.subplots(len(tasks), 3, figsize=(11.5, 3.3 * len(tasks)), squeeze=False)
        for line, task in zip(axes, tasks, strict=True):
            for panel, (metric, label) in zip(line, panels.items(), strict=True):
                for marker, (arm, part) in zip(
                    "oDsx", means[means["task"] == task].groupby("arm", sort=False), strict=False
                ):
                    found = part.groupby("severity")[metric].apply(interval)
                    centre, width = np.array(found.tolist()).T
                    panel.errorbar(
                        found.index, centre, np.nan_to_num(width), marker=marker, capsize=2, label=arm
                    )
                panel.set(title=task, xlabel="severity", ylabel=label)
        axes[0][0].legend(fontsize=7)
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=["digits"], help="built-in tasks, or folders of pictures")
    parser.add_argument("--corruptions", nargs="+", default=list(CORRUPTIONS), choices=list(CORRUPTIONS))
    parser.add_argument("--shots", type=int, default=SHOTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    table = study(tasks, asked.corruptions, asked.shots, asked.seeds)
    head = (
        f"{asked.shots} clean shots, query pictures corrupted; mean ± 95 % interval over seeds "
        f"{list(asked.seeds)}, paired by draw. Run on {hardware()}.\n\n"
    )
    stem = "_".join(["corrupted_digits", *(task.name for task in tasks)])
    write_study(stem, {"": table}, head + conclusions(table) + "\n\n" + summary(table), draw(table))


if __name__ == "__main__":
    main()
