"""How cost and quality grow with the width of the encoder's features.

    python analysis/growth_with_width.py digits digits_rotated
    python analysis/growth_with_width.py FEATURES.npz --widths 32 64 128 256 512
    python analysis/growth_with_width.py digits --encoders CONFIG.json=WEIGHTS.safetensors

Three parts. Cost: processor seconds of fit and prediction on made-up features of width D, 20 classes, 4
shots, at one prior variance, and the power of D that they grow with: the slope between logarithms over the
upper half of the widths, where what does not grow counts for less. Quality: the task's features and texts
through one random orthonormal map to D dimensions, which keeps cosines up to noise of 1/√D; a stand-in for
narrower encoders that saw the same data. Encoders: the task through each encoder given, as it is. Writes
analysis/results/growth_with_width_<tasks>.csv, _cost.csv, .md and .png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from itertools import product
from statistics import median

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from study_tools import SEEDS, hardware, interval, markdown, said, scores, write_study

import bayes_clip as bc
from bayes_clip.progress import track
from bayes_clip.report.style import house_style

CLASSES, SHOTS, QUERIES, TIMES = 20, 4, 500, 3
COST_WIDTHS = (64, 128, 256, 512, 1024, 2048)
WIDTHS = (8, 16, 32, 64, 128)
LOGIT_VARIANCE = 30.0  # s² v of the fits that are timed
TIMED = (  # engine, covariance
    ("sgd", ""), ("map", ""), ("ekf", "class_block"), ("ekf", "diagonal"), ("ekf", "low_rank"),
    ("laplace", "class_block"), ("laplace", "diagonal"),
)  # fmt: skip
ENGINES = ("zero_shot", "map", "ekf", "laplace")


def made_up(width: int) -> bc.Task:
    """Noisy unit rows around a direction for each class, whose texts are near it."""
    generator = torch.Generator().manual_seed(width)
    centres = torch.nn.functional.normalize(torch.randn(CLASSES, width, generator=generator), dim=-1)
    support, query = (torch.arange(count) % CLASSES for count in (CLASSES * SHOTS, QUERIES))

    def around(labels: torch.Tensor) -> torch.Tensor:
        return centres[labels] + torch.randn(len(labels), width, generator=generator) / width**0.5

    text = around(torch.arange(CLASSES))
    return bc.make_task(f"D={width}", around(support), support, around(query), query, text_features=text)


def costs(widths: Sequence[int]) -> pd.DataFrame:
    """Seconds of every engine at every width, the median of a few runs."""
    rows = []
    for width, (engine, covariance) in track(list(product(widths, TIMED)), "Cost by width"):
        task = made_up(width)
        variance = LOGIT_VARIANCE / task.logit_scale**2
        settings = bc.FitSettings(
            engine=engine, covariance=covariance or None, prior_variance=variance, predictive="plug_in"
        )
        runs = [_timed(task, settings) for _ in range(TIMES)]
        row = {"engine": engine, "covariance": covariance, "width": width}
        rows.append({**row, "fit": median(run[0] for run in runs), "predict": median(run[1] for run in runs)})
    return pd.DataFrame(rows)


def _timed(task: bc.Task, settings: bc.FitSettings) -> tuple[float, float]:
    start = time.process_time()
    posterior = bc.fit(task, settings).posterior
    between = time.process_time()
    posterior.predict(task.query_rows)
    return between - start, time.process_time() - between


def slope(widths: Sequence[float], seconds: Sequence[float]) -> float:
    """The power of D that seconds grow with: least squares in logarithms, upper half of the widths."""
    half = len(widths) // 2
    return float(np.polyfit(np.log(widths[half:]), np.log(seconds[half:]), 1)[0])


def narrowed(task: bc.Task, width: int, seed: int) -> bc.Task:
    """The task in `width` random orthonormal directions; as it is where it is no wider."""
    if width >= task.num_features:
        return task
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(task.num_features, width, generator=generator, dtype=torch.float64)
    directions = torch.linalg.qr(square).Q.float()
    return bc.make_task(
        task.name,
        task.support_features @ directions,
        task.support_labels,
        task.query_features @ directions,
        task.query_labels,
        class_names=task.class_names,
        text_features=None if task.text_features is None else task.text_features @ directions,
        logit_scale=task.logit_scale,
    )


def _rows(task: bc.Task, shots: int, seed: int, place: dict[str, object]) -> list[dict[str, object]]:
    drawn = bc.few_shot(task, shots, seed)
    found = []
    for engine in ENGINES:
        if engine == "zero_shot" and task.text_features is None:
            continue
        posterior = bc.fit(drawn, bc.FitSettings(engine=engine, seed=seed)).posterior
        row = {"task": task.name, "shots": shots, "seed": seed, "engine": engine}
        found.append({**place, **row, **scores(posterior, task)})
    return found


def qualities(
    tasks: Sequence[bc.Task], widths: Sequence[int], shots: Sequence[int], seeds: Sequence[int]
) -> pd.DataFrame:
    """Scores of every engine by width, with a map of its own for every seed."""
    rows = []
    for task, count, seed in track(list(product(tasks, shots, seeds)), "Quality by width"):
        for width in sorted({min(width, task.num_features) for width in widths}):
            place = {"encoder": "random map", "width": width}
            rows += _rows(narrowed(task, width, seed), count, seed, place)
    return pd.DataFrame(rows)


def of_encoders(
    names: Sequence[str], encoders: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> pd.DataFrame:
    """Scores of every engine on tasks of pictures through each encoder, ``name`` or ``name=weights``."""
    rows = []
    for encoder, name in track(list(product(encoders, names)), "Quality by encoder"):
        architecture, _, weights = encoder.partition("=")
        backbone = bc.load_backbone(architecture, weights or None)
        task = bc.load_task(name, backbone=backbone)
        for count, seed in product(shots, seeds):
            place = {"encoder": backbone.name, "width": task.num_features}
            rows += _rows(task, count, seed, place)
    return pd.DataFrame(rows)


def cost_table(table: pd.DataFrame) -> str:
    """Seconds by width and the slopes, as Markdown."""
    rows, widths = [], sorted(set(table["width"]))
    for (engine, covariance), part in table.groupby(["engine", "covariance"], sort=False):
        for what in ("fit", "predict"):
            seconds = part.sort_values("width")[what].to_numpy()
            cells = [f"{each:.3f}" for each in seconds]
            rows.append([engine, covariance, what, *cells, f"{slope(widths, seconds):.2f}"])
    return markdown(["engine", "covariance", "what", *(f"D = {width}" for width in widths), "slope"], rows)


def quality_table(table: pd.DataFrame) -> str:
    """Accuracy and NLL by width, as Markdown."""
    rows = [
        [*place, said(part["accuracy"]), said(part["nll"]), said(part["ece"])]
        for place, part in table.groupby(["task", "encoder", "shots", "width", "engine"], sort=False)
    ]
    return markdown(["task", "encoder", "shots", "width", "engine", "accuracy", "NLL", "ECE"], rows)


def conclusions(cost: pd.DataFrame, quality: pd.DataFrame) -> str:
    """Slopes, and what the narrowest and the widest features differ by."""
    lines = []
    for (engine, covariance), part in cost.groupby(["engine", "covariance"], sort=False):
        ordered = part.sort_values("width")
        power = slope(ordered["width"].to_numpy(), ordered["fit"].to_numpy())
        widest = ordered.iloc[-1]
        name = f"{engine} {covariance}".strip()
        lines.append(
            f"- A fit of `{name}` grows as D^{power:.1f} ({widest['fit']:.2f} s at {widest['width']})."
        )
    means = quality.groupby(["engine", "width"])["nll"].mean().unstack("width")
    for engine, row in means.iterrows():
        low, high = row.index.min(), row.index.max()
        lines.append(
            f"- NLL of `{engine}` at width {low}: {row[low]:.3f}; at {high}: {row[high]:.3f} (random maps)."
        )
    return "\n".join(lines)


def draw(cost: pd.DataFrame, quality: pd.DataFrame) -> Figure:
    """Seconds of a fit by width; NLL by width for every task, at the most shots."""
    tasks = list(dict.fromkeys(quality["task"]))
    with house_style():
        figure, axes = plt.subplots(1, 1 + len(tasks), figsize=(4.2 * (1 + len(tasks)), 3.4))
        for (engine, covariance), part in cost.groupby(["engine", "covariance"], sort=False):
            axes[0].plot(part["width"], part["fit"], marker="o", label=f"{engine} {covariance}")
        axes[0].set(xscale="log", yscale="log", xlabel="width D", ylabel="processor seconds of a fit")
        axes[0].legend(fontsize=6)
        most = quality["shots"].max()
        for panel, task in zip(axes[1:], tasks, strict=True):
            ours = quality[(quality["task"] == task) & (quality["shots"] == most)]
            for engine, part in ours.groupby("engine", sort=False):
                found = part.groupby("width")["nll"].apply(interval)
                centre, width = np.array(found.tolist()).T
                panel.errorbar(found.index, centre, np.nan_to_num(width), marker="o", label=engine)
            panel.set(title=f"{task}, {most} shots", xscale="log", yscale="log", xlabel="width D")
            panel.set_ylabel("query NLL (nats)")
        axes[-1].legend(fontsize=7)
        figure.tight_layout()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=["digits", "digits_rotated"])
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--cost-widths", type=int, nargs="+", default=COST_WIDTHS)
    parser.add_argument("--encoders", nargs="+", default=[], metavar="NAME[=WEIGHTS]")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    asked = parser.parse_args()
    tasks = [bc.load_task(name) for name in asked.tasks]
    quality = qualities(tasks, asked.widths, asked.shots, asked.seeds)
    cost = costs(asked.cost_widths)
    encoders = of_encoders(asked.tasks, asked.encoders, asked.shots, asked.seeds)
    head = (
        f"Mean ± 95 % interval over seeds {list(asked.seeds)}; a random map of its own for every seed. "
        f"Processor seconds. Run on {hardware()}.\n\n"
    )
    text = head + conclusions(cost, quality) + "\n\n" + cost_table(cost) + "\n\n"
    every = pd.concat([quality, encoders], ignore_index=True)
    stem = "_".join(["growth_with_width", *(task.name for task in tasks)])
    write_study(stem, {"": every, "_cost": cost}, text + quality_table(every), draw(cost, quality))


if __name__ == "__main__":
    main()
