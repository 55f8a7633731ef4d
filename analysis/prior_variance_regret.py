"""How much does choosing the prior variance from the support set alone lose against knowing the best one?

    python analysis/prior_variance_regret.py FEATURES.npz

For every draw and engine: query NLL with the prior variance (and covariance scale) chosen by balanced folds,
minus the lowest query NLL of any fixed prior variance on a half-decade grid. The grid's best looks at the
query labels; nobody can choose it. Writes analysis/results/prior_variance_regret_<task>.csv and .md.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

import bayes_clip as bc
from bayes_clip.evaluation.metrics import ece, nll
from bayes_clip.progress import track

GRID = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
RESULTS = Path(__file__).parent / "results"


def query_nll(task: bc.Task, settings: bc.FitSettings) -> tuple[float, float, float]:
    """Query NLL, ECE, and the prior variance used."""
    fitted = bc.fit(task, settings)
    probabilities = fitted.posterior.predict(task.query_features).probabilities.numpy()
    labels = task.query_labels.numpy()
    return nll(probabilities, labels), ece(probabilities, labels), fitted.tuned.prior_variance


def study(task: bc.Task, engines: list[str], shots: list[int], seeds: list[int]) -> pd.DataFrame:
    """One row per draw and engine."""
    rows = []
    for count, seed, engine in track(list(product(shots, seeds, engines)), "Regret"):
        drawn = bc.few_shot(task, count, seed)
        fixed = {
            variance: query_nll(
                drawn, bc.FitSettings(engine=engine, prior_variance=variance, predictive="plug_in")
            )
            for variance in GRID
        }
        best = min(fixed, key=lambda variance: fixed[variance][0])
        chosen, chosen_ece, variance = query_nll(drawn, bc.FitSettings(engine=engine))
        rows.append(
            {
                "task": task.name,
                "engine": engine,
                "shots": count,
                "seed": seed,
                "chosen_variance": variance,
                "chosen_nll": chosen,
                "chosen_ece": chosen_ece,
                "best_fixed_variance": best,
                "best_fixed_nll": fixed[best][0],
                "regret": chosen - fixed[best][0],
            }
        )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Means over draws, and the worst regret, as Markdown."""
    grouped = table.groupby(["engine", "shots"])
    lines = [
        "| engine | shots | NLL chosen | NLL best fixed | mean regret | worst regret | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    for (engine, shots), rows in grouped:
        lines.append(
            f"| {engine} | {shots} | {rows['chosen_nll'].mean():.3f} | {rows['best_fixed_nll'].mean():.3f} | "
            f"{rows['regret'].mean():+.4f} | {rows['regret'].max():+.4f} | {rows['chosen_ece'].mean():.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="a feature task (.npz, .safetensors) or a built-in task")
    parser.add_argument("--engines", nargs="+", default=["map", "ekf"])
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    task = bc.load_task(asked.task)
    table = study(task, asked.engines, asked.shots, asked.seeds)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"prior_variance_regret_{task.name}"
    table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    draws = f"seeds {asked.seeds}, {task.name}"
    head = f"Query NLL of the chosen prior variance against the best fixed one, {draws}.\n\n"
    stem.with_suffix(".md").write_text(head + summary(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
