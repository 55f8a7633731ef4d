"""Tables, conclusions and the figure of prior_and_predictive.py."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from study_tools import interval, markdown, said

from bayes_clip.report.style import house_style

DEFAULT, ORACLE = "ekf", "map, best fixed"
# Wanted of the default: NLL below the oracle's by (first task), ECE at most, AUROC of outsiders at least.
GAINS = {1: 0.005, 4: 0.008, 16: 0.015}
MOST_ECE, LEAST_AUROC, LEAST_AUROC_AT_ONE = 0.04, 0.97, 0.96
METRICS = {
    "nll": "NLL (nats)",
    "accuracy": "accuracy",
    "ece": "ECE",
    "outsiders_novelty": "AUROC of outsiders",
}
HIGHER = ("accuracy", "outsiders_novelty")
DOUBTS = ("confidence", "aleatoric", "epistemic", "novelty")
DRAWN = (
    "ekf", "ekf, Monte-Carlo", "ekf, iterated", "ekf, prior along texts", "ekf, evidence", "map, folds",
    "map + temperature", "map, ensemble", "laplace, tempered", "vi",
)  # fmt: skip


def difference(table: pd.DataFrame, arm: str, other: str, metric: str) -> np.ndarray:
    """`arm` less `other`, on the draws that both have."""
    wide = table[table["arm"].isin([arm, other])].pivot(index=["shots", "seed"], columns="arm", values=metric)
    if arm == other or arm not in wide or other not in wide:
        return np.zeros(0)
    return (wide[arm] - wide[other]).dropna().to_numpy()


def targets(table: pd.DataFrame) -> tuple[str, list[str]]:
    """What is wanted of the default against the oracle at every number of shots, and what fails."""
    rows, failed = [], []
    for (task, shots), part in table.groupby(["task", "shots"], sort=False):
        nll, right = (difference(part, DEFAULT, ORACLE, metric) for metric in ("nll", "accuracy"))
        own = part[part["arm"] == DEFAULT]
        best = float(part[part["arm"] == ORACLE]["ece"].mean())
        ece, auroc = float(own["ece"].mean()), float(own["outsiders_novelty"].mean())
        holds = {
            "NLL": -nll.mean() >= (GAINS.get(int(shots), 0.0) if task == table["task"].iloc[0] else 0.0),
            "accuracy": right.mean() >= 0,
            "ECE": shots == 1 or ece <= MOST_ECE,
        }
        if np.isfinite(auroc):
            holds["AUROC"] = auroc >= (LEAST_AUROC_AT_ONE if shots == 1 else LEAST_AUROC)
        failed += [f"{task}, {shots} shots: {name}" for name, kept in holds.items() if not kept]
        verdict = ", ".join(f"{name} FAILS" for name, kept in holds.items() if not kept) or "holds"
        rows.append(
            [
                *(task, shots, said(nll, 4, signed=True), said(right, 4, signed=True)),
                *(said(own["ece"]), f"{best:.3f}", said(own["outsiders_novelty"]), verdict),
            ]
        )
    header = ["task", "shots", "NLL above MAP's best", "accuracy above it", "ECE", "ECE of MAP's best"]
    header += ["AUROC", "verdict"]
    return markdown(header, rows), failed


def conclusions(table: pd.DataFrame) -> str:
    """Targets, then what is gained and lost by every other candidate, in words."""
    wanted, failed = targets(table)
    parts = [
        "## Does the default meet its targets?",
        f"Default (`{DEFAULT}`, chosen by folds) against MAP at the fixed prior variance that is best on the "
        f"query set. Wanted of the first task: NLL lower by {' / '.join(map(str, GAINS.values()))} at "
        f"{' / '.join(map(str, GAINS))} shots; of all: NLL not higher, accuracy not lower, ECE at most "
        f"{MOST_ECE} from two shots on, AUROC at least {LEAST_AUROC_AT_ONE} at one and {LEAST_AUROC} from "
        "two. The verdict is of means over draws.",
        wanted,
        "Fails: " + "; ".join(failed) + "." if failed else "Every target holds at every number of shots.",
        "## What the other candidates gain and lose\n",
        *(_of_task(table[table["task"] == task], task) for task in dict.fromkeys(table["task"])),
    ]
    return "\n\n".join(parts)


def _of_task(table: pd.DataFrame, task: str) -> str:
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm not in (DEFAULT, ORACLE)]
    better, worse = [], []
    for arm in arms:
        found = difference(table, arm, DEFAULT, "nll")
        mean, width = interval(found)
        if np.any(found) and abs(mean) > width:
            (better if mean < 0 else worse).append((mean, f"{arm} {said(found, 3, signed=True)}"))
    lines = [
        f"- {task}, NLL over all shots, against the default on the same draws. Better for certain: "
        f"{_listed(better)}. Worse for certain: {_listed(worse)}. The others cannot be told apart."
    ]
    lost = [text for metric in METRICS for text in _losses(table, metric, arms)]
    lines.append(f"- {task}: the default LOSES for certain at: {'; '.join(lost) if lost else 'nothing'}.")
    return "\n".join([*lines, *_doubts(table, task), *_scale(table, task)])


def _listed(found: list[tuple[float, str]]) -> str:
    return "; ".join(text for _, text in sorted(found)) or "none"


def _losses(table: pd.DataFrame, metric: str, arms: list[str]) -> list[str]:
    """Where the best of the others beats the default by more than the interval of their difference."""
    found = []
    for shots, part in table.groupby("shots"):
        means = part[part["arm"].isin(arms)].groupby("arm")[metric].mean().dropna()
        if means.empty:
            continue
        best = means.idxmax() if metric in HIGHER else means.idxmin()
        behind = difference(part, str(best), DEFAULT, metric) * (1 if metric in HIGHER else -1)
        mean, width = interval(behind)
        if mean > width:
            own = part[part["arm"] == DEFAULT][metric].mean()
            found.append(f"{metric} at {shots} shots, {own:.3f} against {means[best]:.3f} of {best}")
    return found


def _doubts(table: pd.DataFrame, task: str) -> list[str]:
    own = table[table["arm"] == DEFAULT]
    cells = [
        f"{doubt} {own[f'errors_{doubt}'].mean():.3f} / {own[f'outsiders_{doubt}'].mean():.3f}"
        for doubt in DOUBTS
        if f"errors_{doubt}" in own and own[f"outsiders_{doubt}"].notna().any()
    ]
    if not cells:
        return []
    return [
        f"- {task}: two questions, two scores. AUROC with which the default's doubts find its own errors / "
        f"find outsiders, over all shots: {'; '.join(cells)}."
    ]


def _scale(table: pd.DataFrame, task: str) -> list[str]:
    """What folds, evidence and prequential score choose, and what it costs."""
    lines = []
    for shots, part in table.groupby("shots"):
        cells = []
        for arm in ("ekf", "ekf, evidence", "ekf, prequential"):
            own = part[part["arm"] == arm]
            if len(own):
                cells.append(f"{arm} {own['prior_variance'].median():.1e} ({own['nll'].mean():.3f})")
        lines.append(f"{shots} shots: {', '.join(cells)}")
    return [f"- {task}: prior variance chosen (median) and its NLL, folds (`ekf`) first. {'. '.join(lines)}."]


def tables(table: pd.DataFrame) -> str:
    """Every candidate at every number of shots, a table for each task and metric, and seconds."""
    parts = ["## All candidates", "Mean over draws; `vi` has the first two seeds alone."]
    for task in dict.fromkeys(table["task"]):
        own = table[table["task"] == task]
        arms, shots = list(dict.fromkeys(own["arm"])), sorted(set(own["shots"]))
        for metric, name in {**METRICS, "seconds": "processor seconds of the fit"}.items():
            means = own.groupby(["arm", "shots"])[metric].mean().unstack("shots")
            digits = 1 if metric == "seconds" else 3
            rows = [[arm, *(_cell(means.loc[arm, each], digits) for each in shots)] for arm in arms]
            parts += [f"### {task}: {name}", markdown(["candidate", *map(str, shots)], rows)]
    return "\n\n".join(parts)


def _cell(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def draw(table: pd.DataFrame) -> Figure:
    """NLL against the oracle's, ECE and AUROC of outsiders by shots; whom each doubt finds."""
    tasks = list(dict.fromkeys(table["task"]))
    with house_style():
        colours = plt.get_cmap("tab10").colors
        size = (14, 3.4 * len(tasks) + 0.6)
        figure, axes = plt.subplots(len(tasks), 4, figsize=size, squeeze=False, layout="constrained")
        for line, task in zip(axes, tasks, strict=True):
            own = table[table["task"] == task].copy()
            oracle = own[own["arm"] == ORACLE].set_index(["shots", "seed"])["nll"]
            places = pd.MultiIndex.from_frame(own[["shots", "seed"]])
            own["above"] = own["nll"] - oracle.reindex(places).to_numpy()
            for panel, metric in zip(line, ("above", "ece", "outsiders_novelty"), strict=False):
                for arm, colour, marker in zip(DRAWN, colours, "oXsPD^v<>*", strict=True):
                    means = own[own["arm"] == arm].groupby("shots")[metric].mean()
                    panel.plot(means.index, means, marker=marker, ms=4, color=colour, label=arm)
                panel.set(xscale="log", xlabel="shots", title=task)
                panel.set_xticks(sorted(set(own["shots"])), sorted(set(own["shots"])))
                panel.xaxis.set_minor_locator(NullLocator())
            line[0].set(ylabel="NLL above MAP's best fixed (nats)")
            line[0].set_yscale("symlog", linthresh=0.02)
            _ticks(line[0], (-0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5))
            line[0].axhline(0, color="grey", lw=0.8)
            line[1].set(ylabel="ECE", yscale="log")
            _ticks(line[1], (0.01, 0.02, 0.04, 0.1, 0.2, 0.4))
            line[1].axhline(MOST_ECE, color="grey", lw=0.8, ls=":")
            line[2].set(ylabel="AUROC of outsiders by novelty")
            _draw_doubts(line[3], own[own["arm"] == DEFAULT], task)
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncol=5)
    return figure


def _ticks(panel: plt.Axes, values: tuple[float, ...]) -> None:
    """Ticks in plain numbers, those of `values` that the axis shows."""
    low, high = panel.get_ylim()
    shown = [value for value in values if low <= value <= high]
    panel.set_yticks(shown, [f"{value:g}" for value in shown])
    panel.yaxis.set_minor_locator(NullLocator())


def _draw_doubts(panel: plt.Axes, own: pd.DataFrame, task: str) -> None:
    places = np.arange(len(DOUBTS))
    for shift, (side, hatch) in enumerate({"errors": "", "outsiders": "//"}.items()):
        heights = [own[f"{side}_{doubt}"].mean() for doubt in DOUBTS]
        panel.bar(places + 0.4 * shift - 0.2, heights, 0.38, label=side, hatch=hatch, alpha=0.85)
    panel.axhline(0.5, color="grey", lw=0.8)
    panel.set(ylim=(0.2, 1.02), ylabel=f"AUROC, {DEFAULT}", title=f"{task}: whom each doubt finds")
    panel.set_xticks(places, DOUBTS, fontsize=7.5)
    panel.legend(fontsize=7, loc="lower left", frameon=True, framealpha=1)
