"""The published recipe (`kalman_clip`) and the statistically linearised rule beside the default.

    python analysis/paired_cosines.py FEATURES.npz

For every draw: plug-in accuracy, NLL and ECE on the query set, and what became of the adapted noise R and of
the innovations. Prior variances are fixed: several for the recipe, whose own is not known. Writes
analysis/results/paired_cosines_<task>.csv and .md.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

import bayes_clip as bc
from bayes_clip.evaluation.metrics import accuracy, ece, nll
from bayes_clip.progress import track

# rule, covariance, prior variance at logit scale 100, batch size
ARMS = (
    ("expected", "class_block", 3e-3, None),
    ("expected", "diagonal", 3e-3, None),
    ("moment_matched", "class_block", 1e-3, None),
    ("plain", "class_block", 1e-3, None),
    ("kalman_clip", "diagonal", 1e-3, None),
    ("kalman_clip", "diagonal", 1e-2, None),
    ("kalman_clip", "diagonal", 1e-1, None),
    ("kalman_clip", "diagonal", 1e-1, 1),
)
RESULTS = Path(__file__).parent / "results"


def measure(task: bc.Task, settings: bc.FitSettings) -> dict[str, float | None]:
    """Scores on the query set; R and the innovations' statistic where R is adapted."""
    fitted = bc.fit(task, settings)
    probabilities = fitted.posterior.predict(task.query_features).probabilities.numpy()
    labels = task.query_labels.numpy()
    noise = None if fitted.posterior.stream is None else fitted.posterior.stream.noise
    freedom = sum(step.degrees_of_freedom for step in fitted.steps)
    nis = float(sum(step.nis for step in fitted.steps)) / freedom if freedom else None
    return {
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "ece": ece(probabilities, labels),
        "noise": None if noise is None else float(noise),
        "nis_per_degree": None if noise is None else nis,
    }


def study(task: bc.Task, shots: list[int], seeds: list[int]) -> pd.DataFrame:
    """One row per draw and arm; zero-shot once per draw."""
    rows = []
    for count, seed in track(list(product(shots, seeds)), "Rules side by side"):
        few = bc.few_shot(task, count, seed)
        place = {"task": task.name, "shots": count, "seed": seed}
        nothing = measure(few, bc.FitSettings(engine="zero_shot"))
        rows.append({**place, "rule": "zero-shot", "covariance": "", **nothing})
        for rule, covariance, variance, size in ARMS:
            settings = bc.FitSettings(
                rule=rule,
                covariance=covariance,
                prior_variance=variance,
                batch_size=size,
                predictive="plug_in",
            )
            arm = {"rule": rule, "covariance": covariance, "prior_variance": variance, "batch_size": size}
            rows.append({**place, **arm, **measure(few, settings)})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Means over the draws, as Markdown."""
    names = ["rule", "covariance", "prior_variance", "batch_size", "shots"]
    means = table.groupby(names, dropna=False, sort=False).mean(numeric_only=True).reset_index()
    lines = [
        "| rule | covariance | prior variance | batch | shots | accuracy | NLL | ECE | R | NIS per degree |",
        "|" + "---|" * 10,
    ]
    for row in means.sort_values("shots", kind="stable").to_dict("records"):
        variance = "" if pd.isna(row["prior_variance"]) else f"{row['prior_variance']:g}"
        size = "balanced" if pd.isna(row["batch_size"]) else f"{row['batch_size']:g}"
        cells = [row["rule"], row["covariance"], variance, "" if row["rule"] == "zero-shot" else size]
        cells += [row["shots"], f"{row['accuracy']:.3f}", f"{row['nll']:.3f}", f"{row['ece']:.3f}"]
        cells += ["" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in ("noise", "nis_per_degree")]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="a feature task (.npz, .safetensors) or a built-in task")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    task = bc.load_task(asked.task)
    table = study(task, asked.shots, asked.seeds)
    stem = RESULTS / f"paired_cosines_{task.name}"
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    head = (
        f"Plug-in scores on the query set, {task.name}, mean of seeds {asked.seeds}; R is the observation "
        "noise that kalman_clip ends with, NIS the innovations' statistic over the stream. Logit scale "
        f"{task.logit_scale:g}.\n\n"
    )
    stem.with_suffix(".md").write_text(head + summary(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
