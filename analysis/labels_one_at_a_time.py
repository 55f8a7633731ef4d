"""Labels one at a time, in random order and class by class: the filter, and what refining it mends.

    python analysis/labels_one_at_a_time.py FEATURES.npz

For every draw, order and rule: the plug-in NLL on the query set minus that of the mode at the same prior
variance, after the stream of single labels and after each refinement sweep. The filter runs in the span of
the support features, where an isotropic prior leaves it what it is in the whole space, and a step is cheaper;
the processor seconds are of that. Writes analysis/results/labels_one_at_a_time_<task>.csv, .md and .png.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

import bayes_clip as bc
from bayes_clip.inference import kalman
from bayes_clip.inference.batches import batches, row_order
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.mode import ModeProblem, find_mode, mode_problem, weights_of
from bayes_clip.inference.refine import refine
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.stream import run
from bayes_clip.progress import track

SHOTS, VARIANCE, SWEEPS = 4, 1e-2, 2
ORDERS = ("random", "given")
STREAMED = ("expected", "iterated", "plain")
REFINED = ("expected", "iterated")
RESULTS = Path(__file__).parent / "results"
Outcome = tuple[str, int, Tensor, float]  # what was done, sweeps, query probabilities, seconds


@dataclass(frozen=True)
class Draw:
    """One draw of the support set as a linear probe, in the span of its features."""

    task: bc.Task
    problem: ModeProblem

    def beginning(self) -> kalman.KalmanState:
        """The prior, of deviations from the text features."""
        still = torch.zeros(len(self.problem.mean), self.problem.design.shape[1])
        return kalman.init(still, torch.full_like(still, VARIANCE), "class_block")

    def batch(self, rows: Tensor) -> Batch:
        """These rows as the filter sees them, float32."""
        problem = self.problem
        return Batch(problem.design[rows].float(), problem.labels[rows], problem.prior_logits[rows])

    def probabilities(self, deviation: Tensor) -> Tensor:
        """Plug-in probabilities of the query set (M, C) for a posterior mean (C, r)."""
        weights = weights_of(self.problem, deviation.double())
        return (self.task.logit_scale * self.task.query_features.double() @ weights.mT).softmax(-1)


def drawn(task: bc.Task, seed: int) -> Draw:
    """`SHOTS` labels per class."""
    few = bc.few_shot(task, SHOTS, seed)
    if few.text_features is None:
        raise SystemExit("the study needs a task with text features")
    text = few.text_features.double()
    design = few.logit_scale * few.support_features.double()
    return Draw(few, mode_problem(design, few.support_labels, text, torch.full_like(text, VARIANCE)))


def streamed(draw: Draw, rule: str, order: str, seed: int) -> list[Outcome]:
    """One label after another; then, for rules worth it, sweeps of joined and of single labels."""
    start = time.process_time()
    state, data, sites = draw.beginning(), [], []
    for row in row_order(draw.problem.labels, order, seed):
        data.append(draw.batch(row[None]))
        state, _, site = kalman.put_in(state, data[-1], RULES[rule])
        sites.append(site)
    passed = time.process_time() - start
    outcomes = [("as it came", 0, draw.probabilities(state.belief.mean), passed)]
    if rule not in REFINED:
        return outcomes
    for name, rows in (("joined sweep", 32), ("single sweep", 1))[: 2 if rule == "expected" else 1]:
        found, start = (state, data, sites), time.process_time()
        for sweep in range(1, (SWEEPS if rows > 1 else 1) + 1):
            refined = refine(*found, RULES[rule], rows=rows)
            found = (refined.state, refined.data, refined.sites)
            seconds = passed + time.process_time() - start
            outcomes.append((name, sweep, draw.probabilities(refined.state.belief.mean), seconds))
    return outcomes


def refined_on_the_way(draw: Draw, rule: str, order: str, seed: int) -> Outcome:
    """A joined sweep over all that is kept, whenever as many labels have come as there are classes."""
    start, every = time.process_time(), len(draw.problem.mean)
    state, data, sites = draw.beginning(), [], []
    for count, row in enumerate(row_order(draw.problem.labels, order, seed), start=1):
        data.append(draw.batch(row[None]))
        state, _, site = kalman.put_in(state, data[-1], RULES[rule])
        sites.append(site)
        if count % every == 0:
            found = refine(state, data, sites, RULES[rule])
            state, data, sites = found.state, list(found.data), list(found.sites)
    name = f"joined sweep after every {every} labels"
    return name, 1, draw.probabilities(state.belief.mean), time.process_time() - start


def balanced(draw: Draw, seed: int) -> Outcome:
    """The default, for comparison: class-balanced batches, one pass."""
    start = time.process_time()
    order = batches(draw.problem.labels, len(draw.problem.mean), "balanced", None, seed)
    state, _ = run(draw.beginning(), [draw.batch(rows) for rows in order], RULES["expected"])
    return "balanced batches", 0, draw.probabilities(state.belief.mean), time.process_time() - start


def nll(probabilities: Tensor, task: bc.Task) -> float:
    """Mean negative log likelihood of the query labels, nats."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return float(-probabilities.gather(1, task.query_labels[:, None]).clamp_min(tiny).log().mean())


def study(task: bc.Task, seeds: list[int]) -> pd.DataFrame:
    """One row per draw, rule, order and treatment."""
    rows = []
    for seed in track(seeds, "Labels one at a time"):
        draw = drawn(task, seed)
        mode = nll(draw.probabilities(find_mode(draw.problem)), draw.task)
        found = {("expected", "balanced"): [balanced(draw, seed)]}
        for rule, order in product(STREAMED, ORDERS):
            found[rule, order] = streamed(draw, rule, order, seed)
            if rule == "expected":
                found[rule, order].append(refined_on_the_way(draw, rule, order, seed))
        for (rule, order), outcomes in found.items():
            for place, (treatment, sweeps, probabilities, seconds) in enumerate(outcomes):
                score = nll(probabilities, draw.task)
                hits = (probabilities.argmax(-1) == draw.task.query_labels).double().mean()
                row = {"task": task.name, "seed": seed, "rule": rule, "order": order, "treatment": treatment}
                row |= {
                    "sweeps": sweeps,
                    "accuracy": float(hits),
                    "nll": score,
                    "nll_above_mode": score - mode,
                }
                row |= {"seconds": seconds, "order_matters": None}
                if order in ORDERS:  # total variation between what the two orders predict, mean over queries
                    other = found[rule, ORDERS[1 - ORDERS.index(order)]][place][2]
                    row["order_matters"] = float((probabilities - other).abs().sum(-1).mean() / 2)
                rows.append(row)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Mean and worst draw of every arm, as Markdown."""
    lines = [
        "| rule | treatment | sweeps | order | NLL above the mode | accuracy | order matters | seconds |",
        "|" + "---|" * 8,
    ]
    for names, part in table.groupby(["rule", "treatment", "sweeps", "order"], sort=False):
        rule, treatment, sweeps, order = names
        above, matters = part["nll_above_mode"], part["order_matters"].astype(float).mean()
        cells = [rule, treatment, sweeps, order, f"{above.mean():+.4f} ({above.max():+.4f})"]
        cells += [f"{part['accuracy'].mean():.3f}", "" if pd.isna(matters) else f"{matters:.3f}"]
        cells += [f"{part['seconds'].mean():.1f}"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def draw_figure(table: pd.DataFrame, path: Path) -> None:
    """NLL above the mode by sweeps, a panel per order."""
    shown = table[table["treatment"].isin(["as it came", "joined sweep"])]
    grid = sns.relplot(
        shown,
        x="sweeps",
        y="nll_above_mode",
        hue="rule",
        style="rule",
        col="order",
        kind="line",
        markers=True,
        dashes=False,
        errorbar=("pi", 100),
        height=3.4,
        palette="colorblind",
    )
    for axes, limit in zip(grid.axes.flat, (0.03, 0.05), strict=True):
        axes.set_yscale("symlog", linthresh=0.05)
        axes.set_xticks(range(SWEEPS + 1))
        axes.axhline(limit, color="grey", linewidth=0.8, linestyle="--")
        axes.axhline(0, color="black", linewidth=0.8)
    grid.set_axis_labels("sweeps after the stream", "query NLL above the mode's (nats)")
    grid.savefig(path, dpi=150)


def hardware() -> str:
    """What the seconds were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} thread(s)"


def write(table: pd.DataFrame) -> None:
    """Table, summary and figure."""
    task, seeds = table["task"].iloc[0], sorted(set(table["seed"]))
    stem = RESULTS / f"labels_one_at_a_time_{task}"
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    head = (
        f"{task}, {SHOTS} shots, prior variance {VARIANCE:g}, labels one at a time (but for the balanced "
        f"batches). Query NLL above the mode's, mean (worst) of seeds {seeds}; order matters: total "
        "variation between predictions of the two orders, mean over the queries. Processor seconds of the "
        f"stream and its sweeps together, in the span of the support features, on {hardware()}.\n\n"
    )
    stem.with_suffix(".md").write_text(head + summary(table) + "\n", encoding="utf-8")
    draw_figure(table, stem.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="a feature task (.npz, .safetensors) or a built-in task")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    write(study(bc.load_task(asked.task), asked.seeds))


if __name__ == "__main__":
    main()
