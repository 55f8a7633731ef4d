"""What an adapter costs: seconds and memory of fit and prediction, by program and engine.

    python analysis/cost_of_adapters.py digits_rotated --shots 4
    python analysis/cost_of_adapters.py FEATURES.npz --shots 16 --models linear_probe task_residual

Each fit runs in a process of its own on one thread; an arm that takes longer than --patience is not repeated
for the other seeds, and one that takes ten times as long is stopped. `fit`: everything from the labels to a
posterior, the search for the prior variance included (engine sgd follows the authors' recipe and searches for
nothing). Seconds are of processor time. Memory: the peak above what the process held before. Relative: to the
mode of the linear probe, and to the same program trained as published (sgd). Writes
analysis/results/cost_of_adapters_<task>.csv, .md and .png. Needs Linux, for the peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import SEEDS, hardware, markdown, scores, write_study

import bayes_clip as bc
from bayes_clip.progress import track
from bayes_clip.report.style import house_style

MODELS = (
    "linear_probe", "task_residual", "clap", "tip_adapter", "clip_adapter_no_relu", "visual_projection",
    "gda", "coop", "lora",
)  # fmt: skip
ENGINES = ("sgd", "map", "ekf", "laplace")
PATIENCE = 10.0  # seconds
REFERENCE = ("linear_probe", "map")
Arm = tuple[str, str]


def measured(task: bc.Task, settings: bc.FitSettings) -> dict[str, Any]:
    """Seconds, mebibytes and scores of one fit and of predicting the query set, in this process."""
    row: dict[str, Any] = {}
    before, start = resident(), time.process_time()
    fitted = bc.fit(task, settings)
    row |= {"fit_seconds": time.process_time() - start, "fit_mib": peak() - before}
    before, start = resident(), time.process_time()
    fitted.posterior.predict(task.query_rows)
    row |= {"predict_seconds": time.process_time() - start, "predict_mib": peak() - before}
    row["weights"] = fitted.posterior.weights.mean.numel()
    row["covariance"] = fitted.posterior.source.settings.family
    return {**row, **scores(fitted.posterior, task)}


def in_own_process(task: bc.Task, settings: bc.FitSettings, most_seconds: float) -> dict[str, Any] | str:
    """`measured` in a fresh copy of this process; or why there is nothing to report."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(theirs, task, settings))
    child.start()
    theirs.close()
    try:
        if not ours.poll(most_seconds):
            return f"stopped after {most_seconds:.0f} s"
        return ours.recv()
    except EOFError:
        return "was killed, most likely for lack of memory"
    finally:
        child.kill()
        child.join()


def _report(connection: Connection, task: bc.Task, settings: bc.FitSettings) -> None:
    try:
        found: dict[str, Any] | str = measured(task, settings)
    except bc.UserError as error:
        found = f"refused: {error}"
    connection.send(found)
    connection.close()


def resident() -> float:
    """Mebibytes that this process holds now; its peak is counted anew from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak() -> float:
    """The most mebibytes that it held since."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def study(
    task: bc.Task, shots: int, arms: Sequence[Arm], seeds: Sequence[int], patience: float = PATIENCE
) -> tuple[pd.DataFrame, dict[Arm, str]]:
    """A row for every arm and draw; and what could not be measured, with the reason."""
    rows, missing, slow = [], {}, set()
    for seed, arm in track(list(product(seeds, arms)), "Cost"):
        if arm in missing or arm in slow:
            continue
        model, engine = arm
        drawn = bc.few_shot(task, shots, seed)
        found = in_own_process(drawn, bc.FitSettings(model=model, engine=engine, seed=seed), 10 * patience)
        if isinstance(found, str):
            missing[arm] = found
            continue
        if found["fit_seconds"] + found["predict_seconds"] > patience:
            slow.add(arm)
        rows.append(
            {"task": task.name, "shots": shots, "seed": seed, "model": model, "engine": engine, **found}
        )
    return pd.DataFrame(rows), missing


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """Median cost and mean scores of every arm, and its seconds relative to the two references."""
    costs = ["fit_seconds", "predict_seconds", "fit_mib", "predict_mib", "weights"]
    arms = table.groupby(["model", "engine"], sort=False)
    found = arms[costs].median().join(arms[["accuracy", "nll"]].mean()).join(arms["covariance"].first())
    found["draws"] = arms.size()
    seconds = found["fit_seconds"]
    found["to_reference"] = seconds / seconds[REFERENCE] if REFERENCE in found.index else float("nan")
    trained = seconds.xs("sgd", level="engine") if "sgd" in set(table["engine"]) else seconds.iloc[:0]
    models = found.index.get_level_values("model")
    found["to_published"] = seconds.to_numpy() / trained.reindex(models).to_numpy(dtype=float)
    return found.reset_index()


def summary(found: pd.DataFrame, missing: dict[Arm, str]) -> str:
    """Every arm's cost as Markdown, and what is missing."""
    rows = []
    for row in found.to_dict("records"):
        ratios = [
            "" if pd.isna(row[name]) else f"{row[name]:.2g}" for name in ("to_reference", "to_published")
        ]
        cells = [row["model"], row["engine"], row["covariance"], f"{row['weights']:,.0f}"]
        cells += [f"{row['fit_seconds']:.2f}", *ratios, f"{row['predict_seconds']:.2f}"]
        cells += [f"{row['fit_mib']:.0f}", f"{row['predict_mib']:.0f}"]
        rows.append([*cells, f"{row['accuracy']:.3f}", f"{row['nll']:.3f}", row["draws"]])
    header = ["program", "engine", "covariance", "weights", "fit s", f"x {' '.join(REFERENCE)}", "x sgd"]
    header += ["predict s", "fit MiB", "predict MiB", "accuracy", "NLL", "draws"]
    lines = [f"{model} under {engine}: {why}" for (model, engine), why in missing.items()]
    return markdown(header, rows) + "".join(f"\n\n{line}." for line in lines)


def conclusions(found: pd.DataFrame) -> str:
    """By engine: how many times as long as training as published, over the programs."""
    lines = []
    for engine, part in found[found["engine"] != "sgd"].groupby("engine", sort=False):
        ratio = part.set_index("model")["to_published"].dropna()
        if len(ratio):
            lines.append(
                f"- `{engine}` takes {ratio.min():.2g} (`{ratio.idxmin()}`) to {ratio.max():.2g} "
                f"(`{ratio.idxmax()}`) times as long as training the same program as published; "
                f"peak memory of a fit {part['fit_mib'].min():.0f} to {part['fit_mib'].max():.0f} MiB."
            )
    cheapest = found.loc[found["fit_seconds"].idxmin()]
    lines.append(
        f"- The cheapest fit is `{cheapest['model']}` under `{cheapest['engine']}` "
        f"({cheapest['fit_seconds']:.2f} s)."
    )
    return "\n".join(lines)


def draw(found: pd.DataFrame) -> Figure:
    """Seconds and mebibytes of a fit, by program, an engine a colour."""
    with house_style():
        figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
        for panel, name, label in zip(
            axes, ("fit_seconds", "fit_mib"), ("seconds of a fit", "peak MiB of a fit"), strict=True
        ):
            wide = found.pivot(index="model", columns="engine", values=name)
            wide = wide.reindex(index=dict.fromkeys(found["model"]), columns=dict.fromkeys(found["engine"]))
            wide.clip(lower=1e-2).plot.bar(ax=panel, width=0.8, legend=panel is axes[0])
            panel.set(yscale="log", ylabel=label, xlabel="")
            panel.set_xticks(panel.get_xticks(), wide.index, rotation=35, ha="right", rotation_mode="anchor")
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", nargs="?", default="digits_rotated")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--engines", nargs="+", default=ENGINES)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--patience", type=float, default=PATIENCE)
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a process that has used OpenMP's threads cannot be copied
    task = bc.load_task(asked.task)
    arms = list(product(asked.models, asked.engines))
    table, missing = study(task, asked.shots, arms, asked.seeds, asked.patience)
    found = medians(table)
    head = (
        f"{task.name}, {asked.shots} shots, {task.num_classes} classes, {len(task.query_labels)} queries; "
        f"median processor seconds and MiB, mean scores over seeds {list(asked.seeds)} (fewer for arms that "
        f"take longer than {asked.patience:g} s). Run on {hardware()}.\n\n"
    )
    text = head + conclusions(found) + "\n\n" + summary(found, missing)
    write_study(f"cost_of_adapters_{task.name}", {"": table}, text, draw(found))


if __name__ == "__main__":
    main()
