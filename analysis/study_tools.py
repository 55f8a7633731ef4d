"""What the studies share: scores of a fit, means with intervals, hardware, and where results go."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

import bayes_clip as bc
from bayes_clip.evaluation.metrics import accuracy, ece, nll
from bayes_clip.evaluation.paired import t_interval
from bayes_clip.report.style import plain_numbers

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2, 3, 4)


def scores(posterior: bc.Posterior, task: bc.Task) -> dict[str, float]:
    """Accuracy, NLL (nats) and ECE on the query set, by the posterior's own predictive."""
    probabilities = posterior.predict(task.query_rows).probabilities.numpy()
    labels = task.query_labels.numpy()
    return {
        "accuracy": accuracy(probabilities, labels),
        "nll": nll(probabilities, labels),
        "ece": ece(probabilities, labels),
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; no width for one value."""
    found = t_interval(values)
    return found.mean, float("nan") if found.high is None else found.high - found.mean


def said(values: Sequence[float], digits: int = 3, signed: bool = False) -> str:
    """ "0.512 ± 0.010": `interval` in words."""
    mean, width = interval(values)
    sign = "+" if signed else ""
    return f"{mean:{sign}.{digits}f}" + ("" if np.isnan(width) else f" ± {width:.{digits}f}")


def arm_names(table: pd.DataFrame) -> pd.Series:
    """ "model, engine" of every row; the engine alone where one model was asked for, and for zero_shot."""
    alone = (table["engine"] == "zero_shot") | (table["model"].nunique() == 1)
    return table["engine"].where(alone, table["model"] + ", " + table["engine"])


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def hardware() -> str:
    """What seconds were measured on."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread(s)"


def write_study(stem: str, tables: dict[str, pd.DataFrame], text: str, figure: Figure | None) -> None:
    """analysis/results/<stem><suffix>.csv of every table (suffix "" for the main one), .md and .png."""
    RESULTS.mkdir(exist_ok=True)
    for suffix, table in tables.items():
        table.to_csv(RESULTS / f"{stem}{suffix}.csv", index=False, float_format="%.6g")
    (RESULTS / f"{stem}.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    if figure is not None:
        for axes in figure.axes:
            plain_numbers(axes)
        figure.tight_layout()
        figure.savefig(RESULTS / f"{stem}.png", dpi=150, bbox_inches="tight")
