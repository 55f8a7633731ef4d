"""Does the filter keep up with the posterior mode at the same prior variance? Rules and passes, side by side.

    python analysis/filter_against_map.py FEATURES.npz

For every draw, prior variance, rule and number of passes: the plug-in NLL on the query set, minus that of the
mode at the same prior variance. Writes analysis/results/filter_against_map_<task>.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import seaborn as sns

import bayes_clip as bc
from bayes_clip.evaluation.metrics import accuracy, nll
from bayes_clip.progress import track

VARIANCES = (1e-4, 1e-3, 1e-2, 3e-2)
ARMS = (("expected", 1), ("expected", 2), ("iterated", 1), ("plain", 1))
RESULTS = Path(__file__).parent / "results"


def measure(task: bc.Task, settings: bc.FitSettings) -> dict[str, float]:
    """Plug-in accuracy and NLL on the query set, and the seconds of the fit."""
    fitted = bc.fit(task, settings)
    probabilities = fitted.posterior.predict(task.query_features).probabilities.numpy()
    labels = task.query_labels.numpy()
    return {
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "seconds": fitted.seconds,
    }


def study(task: bc.Task, shots: list[int], seeds: list[int]) -> pd.DataFrame:
    """One row per draw, prior variance, rule and number of passes."""
    rows = []
    for count, seed, variance in track(list(product(shots, seeds, VARIANCES)), "Filter against mode"):
        drawn = bc.few_shot(task, count, seed)
        common = {"prior_variance": variance, "predictive": "plug_in"}
        mode = measure(drawn, bc.FitSettings(engine="map", **common))
        place = {"task": task.name, "shots": count, "seed": seed, "prior_variance": variance}
        rows.append({**place, "rule": "mode", "passes": 0, **mode, "nll_above_mode": 0.0})
        for rule, passes in ARMS:
            found = measure(drawn, bc.FitSettings(engine="ekf", rule=rule, passes=passes, **common))
            above = found["nll"] - mode["nll"]
            rows.append({**place, "rule": rule, "passes": passes, **found, "nll_above_mode": above})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Mean and worst draw of the NLL above the mode, as Markdown."""
    arms = table[table["rule"] != "mode"]
    grouped = arms.groupby(["rule", "passes", "shots", "prior_variance"])["nll_above_mode"]
    cells = grouped.agg(["mean", "max"]).reset_index()
    cells["cell"] = [
        f"{mean:+.4f} ({worst:+.4f})" for mean, worst in zip(cells["mean"], cells["max"], strict=True)
    ]
    wide = cells.pivot(
        index=["rule", "passes", "shots"], columns="prior_variance", values="cell"
    ).reset_index()
    lines = ["| " + " | ".join(str(name) for name in wide.columns) + " |", "|" + "---|" * len(wide.columns)]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in wide.to_numpy()]
    return "\n".join(lines)


def draw(table: pd.DataFrame, path: Path) -> None:
    """NLL above the mode against prior variance, a panel per number of shots."""
    arms = table[table["rule"] != "mode"].assign(
        arm=lambda rows: rows["rule"] + ", passes " + rows["passes"].astype(str)
    )
    grid = sns.relplot(
        arms,
        x="prior_variance",
        y="nll_above_mode",
        hue="arm",
        style="arm",
        col="shots",
        kind="line",
        markers=True,
        dashes=False,
        errorbar=("pi", 100),
        height=3.2,
        palette="colorblind",
    )
    grid.set(xscale="log", yscale="symlog")
    for axes in grid.axes.flat:
        axes.set_yscale("symlog", linthresh=0.02)
        axes.axhline(0.02, color="grey", linewidth=0.8, linestyle="--")
        axes.axhline(0, color="black", linewidth=0.8)
    grid.set_axis_labels("prior variance", "query NLL above the mode's (nats)")
    grid.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="a feature task (.npz, .safetensors) or a built-in task")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    task = bc.load_task(asked.task)
    table = study(task, asked.shots, asked.seeds)
    stem = RESULTS / f"filter_against_map_{task.name}"
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    draws = f"mean (worst) of seeds {asked.seeds}, {task.name}"
    head = f"Query NLL above the mode's at the same prior variance, {draws}.\n\n"
    stem.with_suffix(".md").write_text(head + summary(table) + "\n", encoding="utf-8")
    draw(table, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
