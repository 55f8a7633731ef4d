"""Predicted seconds of a fit against measured ones, covariance by covariance.

    python analysis/predicted_seconds.py [FEATURES.npz] [--shots 4,16] [--prior-variance V]

Forecast and fit alternate in one process. Without a feature task: synthetic ones, unit features around their
classes. At a prior variance that is given the fit is one run of the filter; `auto` searches it as well.
Writes analysis/results/predicted_seconds_<task>.csv and .md. A covariance that would take more than
`MOST_SECONDS` by its forecast is left out.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import pandas as pd
import torch

import bayes_clip as bc
from bayes_clip.fitting import fit
from bayes_clip.forecast import forecast
from bayes_clip.progress import track

RESULTS = Path(__file__).parent / "results"
MOST_SECONDS = 60.0
SYNTHETIC = ((10, 64, 16), (47, 512, 4))  # classes, features, shots
SPREAD = 0.5  # of a class around its text features, over their length


def synthetic(classes: int, features: int, shots: int, seed: int = 0) -> bc.Task:
    """Unit features around the text features of their classes."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.nn.functional.normalize(torch.randn(classes, features, generator=generator), dim=-1)
    labels = torch.arange(classes).repeat_interleave(shots)
    noise = torch.randn(len(labels), features, generator=generator) * SPREAD / features**0.5
    rows = text[labels] + noise
    name = f"synthetic_{classes}_{features}"
    return bc.make_task(name, rows, labels, rows[:1], labels[:1], text_features=text, logit_scale=30.0)


def study(
    tasks: list[bc.Task], prior_variance: float | None, most_seconds: float = MOST_SECONDS
) -> pd.DataFrame:
    """One row for every task and covariance: predicted and measured seconds, and their ratio."""
    # whether a covariance scale is chosen from folds is the search's business
    predictive = "auto" if prior_variance is None else "plug_in"
    settings = bc.FitSettings(prior_variance=prior_variance, predictive=predictive)
    rows = []
    for task in track(tasks, "tasks"):
        fit(task, settings)  # what only the first fit of a process pays for
        for one in forecast(task, settings):
            chosen = bc.FitSettings(
                covariance=one.covariance, prior_variance=prior_variance, predictive=predictive
            )
            if one.seconds > most_seconds or not one.fits:
                continue
            start = time.perf_counter()
            fit(task, chosen)
            measured = time.perf_counter() - start
            rows.append(
                {
                    "task": task.name,
                    "classes": task.num_classes,
                    "features": task.num_features,
                    "labels": len(task.support_labels),
                    "prior_variance": "auto" if prior_variance is None else prior_variance,
                    "covariance": one.covariance,
                    "predicted_seconds": one.seconds,
                    "measured_seconds": measured,
                    "ratio": one.seconds / measured,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("task", nargs="?")
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--prior-variance", default="0.003")
    asked = parser.parse_args()
    if asked.task is None:
        name, tasks = "synthetic", [synthetic(*size) for size in SYNTHETIC]
    else:
        loaded = bc.load_task(asked.task)
        name, tasks = loaded.name, [bc.few_shot(loaded, int(shots), 0) for shots in asked.shots.split(",")]
    variance = None if asked.prior_variance == "auto" else float(asked.prior_variance)
    table = study(tasks, variance)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"predicted_seconds_{name}{'_search' if variance is None else ''}"
    table.to_csv(stem.with_suffix(".csv"), index=False)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    text = f"Predicted and measured seconds of a fit; {machine}.\n\n{markdown(table)}\n"
    stem.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def markdown(table: pd.DataFrame) -> str:
    """The table in Markdown, numbers to three digits."""
    cells = [
        [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row] for row in table.values
    ]
    lines = [table.columns.tolist(), ["---"] * table.shape[1], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
