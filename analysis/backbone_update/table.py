"""The compatibility table: what an adapter fitted on one encoder is worth on the next.

    python -m analysis.backbone_update.table
    python -m analysis.backbone_update.table --models linear_probe coop --tasks digits --seeds 0 1
    python -m analysis.backbone_update.table --old ViT-B-32 laion400m_e32 --new ViT-L-14 openai --tasks my/

Any two open_clip models will do; pocket_clip and its version 2 unless others are named. Writes results.csv (a
row for every model, task, seed and arm as it ends; what is there is not done again), results.md and
results.png.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

import bayes_clip as bc
from analysis.backbone_update.arms import Pair, draw, measure
from analysis.study_tools import hardware, markdown, said
from bayes_clip.model import list_models
from bayes_clip.report.style import house_style

HERE = Path(__file__).parent
NEW = (str(HERE / "pocket_clip_v2.json"), str(HERE / "pocket_clip_v2.safetensors"))
TASKS = ("digits", "digits_rotated", "digits_mirrored")
SHOTS, SEEDS = 4, (0, 1, 2, 3, 4)
COLUMNS = ("task", "model", "seed", "arm", "k", "accuracy", "nll", "ece", "note")
ARMS = (
    ("zero-shot", 0),
    ("on the old encoder", 0),
    ("unchanged", 0),
    ("transported", 0),
    ("transported", 1),
    ("retrained", 1),
    ("transported", 4),
    ("retrained", 4),
    ("retrained with the old labels too", 4),
)
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9")
MARKERS = "osD^vP"  # one more for every six models


def pairs(names: Sequence[str], old: bc.Backbone, new: bc.Backbone) -> list[Pair]:
    """The tasks as both encoders see them, under the same prompts: those of the old one."""
    templates = old.default_templates
    return [Pair(*(bc.load_task(name, encoder, templates) for encoder in (old, new))) for name in names]


def run(found: Sequence[Pair], models: Sequence[str], seeds: Sequence[int], path: Path) -> None:
    """Append what is not there yet to the CSV at `path`, each draw as it ends."""
    there = _done(path)
    if not path.exists():
        path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    for seed, model, pair in product(seeds, models, found):
        key = (pair.new.name, model, seed)
        if key in there:
            continue
        rows = list(measure(pair, model, draw(pair, SHOTS, seed)))
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            for row in rows:
                numbers = {name: f"{n:.6g}" if isinstance(n, float) else n for name, n in row.items()}
                writer.writerow({**dict(zip(COLUMNS, key, strict=False)), **numbers})


def _done(path: Path) -> set[tuple[str, str, int]]:
    if not path.exists():
        return set()
    table = pd.read_csv(path)
    return set(zip(table["task"], table["model"], table["seed"].astype(int), strict=True))


def summary(table: pd.DataFrame) -> str:
    """Means over the seeds with 95 % intervals: one table a task, accuracy in percent / NLL in nats."""
    names = [arm if k == 0 else f"{arm}, k = {k}" for arm, k in ARMS]
    parts = []
    for task, of_task in table.groupby("task", sort=False):
        rows = [[model, part["seed"].nunique(), *_cells(part)] for model, part in of_task.groupby("model")]
        parts.append(f"### {task}\n\n" + markdown(["model", "draws", *names], rows))
    parts.append("### How linear heads are carried\n\n" + _of_heads(table))
    why = table.dropna(subset=["note"]).drop_duplicates(["model", "arm"]).sort_values(["arm", "model"])
    listed = "\n".join(f"- {row.arm}, {row.model}: {row.note}" for row in why.itertuples())
    return "\n\n".join([*parts, "### Where there is a dash\n\n" + listed])


def _of_heads(table: pd.DataFrame) -> str:
    """The maps, and what is carried, side by side; without new labels."""
    carried = table[table["arm"].str.startswith("transported") & (table["k"] == 0)]
    heads = carried[carried["model"].isin(carried.loc[carried["arm"] != "transported", "model"])]
    kinds = sorted(set(heads["arm"]))
    rows = [
        [task, model, *(_cell(part[part["arm"] == kind]) for kind in kinds)]
        for (task, model), part in heads.groupby(["task", "model"])
    ]
    return markdown(["task", "model", *kinds], rows)


def _cells(part: pd.DataFrame) -> list[str]:
    return [_cell(part[(part["arm"] == arm) & (part["k"] == k)]) for arm, k in ARMS]


def _cell(part: pd.DataFrame) -> str:
    known = part.dropna(subset=["accuracy"])
    if known.empty:
        return "-"
    return f"{said(100 * known['accuracy'], 1)} / {said(known['nll'], 2)}"


def picture(table: pd.DataFrame) -> Figure:
    """Accuracy of every arm, a panel a task; each model at its own height, in its own colour and mark."""
    tasks, models = (list(dict.fromkeys(table[column])) for column in ("task", "model"))
    shown = [arm for arm in ARMS if arm[0] != "on the old encoder"]
    names = [arm if k == 0 else f"{arm}, k = {k}" for arm, k in shown]
    with house_style():
        figure = Figure(figsize=(4.4 * len(tasks) + 1, 6.4), layout="constrained")
        axes = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axis, task in zip(axes, tasks, strict=True):
            for place, model in enumerate(models):
                part = table[(table["task"] == task) & (table["model"] == model)]
                means = [
                    100 * part[(part["arm"] == arm) & (part["k"] == k)]["accuracy"].mean() for arm, k in shown
                ]
                heights = [row + 0.7 * (place / max(1, len(models) - 1) - 0.5) for row in range(len(shown))]
                style = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place // len(COLOURS)]}
                axis.plot(means, heights, linestyle="", markersize=5, label=model, **style)
            for row in range(1, len(shown)):
                axis.axhline(row - 0.5, color="grey", lw=0.4)
            axis.set(title=task, xlabel="accuracy on the new encoder, %")
            axis.grid(axis="y", visible=False)
        axes[0].set_yticks(range(len(shown)), names)
        axes[0].set_ylim(len(shown) - 0.5, -0.5)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=6)
    return figure


def write(folder: Path) -> None:
    """results.md and results.png from results.csv."""
    table = pd.read_csv(folder / "results.csv")
    about = (
        "Accuracy in percent / NLL in nats on the new encoder's query set: mean ± 95 % interval over draws "
        f"of {SHOTS} labels a class that the old one learned from; k fresh ones a class. {hardware()}."
    )
    (folder / "results.md").write_text(f"{about}\n\n{summary(table).rstrip()}\n", encoding="utf-8")
    picture(table).savefig(folder / "results.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", nargs="+", default=["pocket_clip"], help="name, and weights if need be")
    parser.add_argument("--new", nargs="+", default=list(NEW))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--models", nargs="+", default=sorted(list_models()))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    found = pairs(asked.tasks, bc.load_backbone(*asked.old), bc.load_backbone(*asked.new))
    run(found, asked.models, asked.seeds, asked.out / "results.csv")
    write(asked.out)


if __name__ == "__main__":
    main()
