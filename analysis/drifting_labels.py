"""Labels that drift through a stream: does process noise, chosen by the filter's own predictions, pay?

    python analysis/drifting_labels.py digits
    python analysis/drifting_labels.py FEATURES.npz --batch-size 47

What the classes look like turns by 90 degrees along the stream: little by little (slow), or at once in the
middle (abrupt). For digits the pictures are turned before pocket_clip encodes them; for a feature task each
class turns in the plane of its own mean direction and that of the next class. Every batch is predicted from
the batches before it, then learned; the score is the NLL per label (prequential). No arm but those in
hindsight sees a label early.

    filter, static          rule `expected`, class_block, no process noise; covariance scale chosen
    filter, first quarter   process noise and covariance scale chosen in the first quarter, then kept
    filter, chosen          process noise and covariance scale chosen before every batch
    filter, averaged        all of them, each with the probability its scores so far give it
    refit map, ...          the mode of the last W batches, refitted before every batch; W chosen or averaged
    refit laplace, ...      the same with Laplace's covariance; W and the covariance scale chosen or averaged
    ..., in hindsight       the one choice that was best over this whole stream: out of reach

Chosen is what scored best on all batches before. Averaged is the Bayesian mixture of the choices with equal
prior weights: over the whole stream it loses at most log(choices) nats to the best of them.
Prior variances are the defaults of rule and engine. Writes analysis/results/drifting_labels_<task>.csv,
_profile.csv, .md and .png.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib import pyplot as plt
from scipy import special, stats
from torch import Tensor
from turning_classes import Stream, make_stream

import bayes_clip as bc
from bayes_clip.inference import kalman
from bayes_clip.inference.laplace import laplace
from bayes_clip.inference.mode import find_mode, mode_problem, weights_of
from bayes_clip.inference.rules import RULES
from bayes_clip.predictive import LogitBelief, closed_form
from bayes_clip.progress import track
from bayes_clip.report.style import house_style
from bayes_clip.state_space import StateSpace
from bayes_clip.tuning import COVARIANCE_SCALES, default_variance

RESULTS = Path(__file__).parent / "results"
SCENARIOS = ("slow", "abrupt")
NOISES = (0.0, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
WINDOWS = (2, 4, 8, 16)
REFERENCE = "filter, averaged"
PICTURED = ("filter, static", REFERENCE, "refit map, averaged", "refit laplace, averaged")
TINY = 1e-30


@dataclass(frozen=True)
class Losses:
    """NLL of each batch, summed over its rows, by choice and covariance scale: (choices, scales, T)."""

    values: np.ndarray
    scores: np.ndarray  # (choices, 2) prequential score and log evidence per label; empty for refits


def batch_losses(belief: LogitBelief, design: Tensor, labels: Tensor) -> list[float]:
    """NLL of the batch at each covariance scale; scale 0 is plug-in."""
    mean, variance = belief.logit_moments(design)
    picked = [closed_form(mean, scale * variance).gather(1, labels[:, None]) for scale in COVARIANCE_SCALES]
    return [-float(one.clamp_min(TINY).log().sum()) for one in picked]


def filter_losses(stream: Stream) -> Losses:
    """The filter at every process noise of NOISES: one pass each, every batch scored before it is learned."""
    variance = default_variance("expected", stream.logit_variance, stream.has_text)
    losses, scores = [], []
    for noise in NOISES:
        space = StateSpace(1.0, noise)
        state = kalman.init(
            stream.prior_mean, torch.full_like(stream.prior_mean, variance), covariance="class_block"
        )
        own, totals = [], np.zeros(2)
        for design, labels in zip(stream.design, stream.labels, strict=True):
            own.append(batch_losses(kalman.propagated(state, space), design, labels))
            state, info = kalman.update(state, kalman.Batch(design, labels), RULES["expected"], space)
            totals += float(info.prequential_score), float(info.change.log_evidence)
        losses.append(own)
        scores.append(totals / stream.labels.numel())
    return Losses(np.array(losses).transpose(0, 2, 1), np.array(scores))


def refit_losses(stream: Stream) -> Losses:
    """The mode of the last W batches with Laplace's covariance, refitted before every batch, for each W."""
    variance = default_variance("laplace", stream.logit_variance, stream.has_text)
    spread = torch.full_like(stream.prior_mean, variance)
    losses = np.zeros((len(WINDOWS), len(COVARIANCE_SCALES), len(stream.labels)))
    for step, (design, labels) in enumerate(zip(stream.design, stream.labels, strict=True)):
        found: dict[int, list[float]] = {}  # windows that reach back to the first batch are one fit
        for index, window in enumerate(WINDOWS):
            begin = max(0, step - window)
            if begin not in found:
                past, known = stream.design[begin:step].flatten(0, 1), stream.labels[begin:step].flatten()
                found[begin] = batch_losses(refit(stream.prior_mean, spread, past, known), design, labels)
            losses[index, :, step] = found[begin]
    return Losses(losses, np.empty((0, 2)))


def refit(mean: Tensor, variance: Tensor, design: Tensor, labels: Tensor) -> LogitBelief:
    """Laplace's belief from these rows; the prior where there are none."""
    if len(labels) == 0:
        return kalman.init(mean, variance, "class_block").belief
    problem = mode_problem(design, labels, mean, variance)
    mode = weights_of(problem, find_mode(problem, tolerance=1e-6)).to(design)
    return laplace("class_block", design, labels, mode, variance)


def chosen(losses: np.ndarray, until: int | None = None) -> np.ndarray:
    """Losses (T,) of following, at each step, the choice with the least total loss before it.

    `losses` (choices, T); the first choice begins. From step `until` on the choice is kept.
    """
    before = np.cumsum(losses, axis=1) - losses
    best = before.argmin(axis=0)
    if until is not None:
        best[until:] = best[until]
    return losses[best, np.arange(losses.shape[1])]


def averaged(losses: np.ndarray) -> np.ndarray:
    """Losses (T,) of the mixture of all choices (choices, T), weighted by exp(−total loss before)."""
    total = np.cumsum(losses, axis=1)
    mixture = special.logsumexp(-total, axis=0) - np.log(len(losses))
    return -np.diff(mixture, prepend=0.0)


def arms(filtered: Losses, refitted: Losses) -> dict[str, np.ndarray]:
    """Arm -> loss of each batch, (T,)."""
    steps = filtered.values.shape[-1]
    all_filters, all_refits = (one.values.reshape(-1, steps) for one in (filtered, refitted))
    modes = refitted.values[:, 0]
    found = {
        "filter, static": chosen(filtered.values[0]),
        "filter, first quarter": chosen(all_filters, until=steps // 4),
    }
    for name, losses in (("filter", all_filters), ("refit map", modes), ("refit laplace", all_refits)):
        found[f"{name}, chosen"] = chosen(losses)
        found[f"{name}, averaged"] = averaged(losses)
        found[f"{name}, in hindsight"] = losses[losses.sum(1).argmin()]
    return found


def study(task: bc.Task, seeds: list[int], steps: int, batch_size: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """NLL per label of each batch (scenario, seed, arm, step), and the profile over process noise."""
    rows, profile = [], []
    for scenario in SCENARIOS:
        for seed in track(seeds, f"{task.name}, {scenario}"):
            stream = make_stream(task, scenario, seed, steps, batch_size)
            filtered = filter_losses(stream)
            place = {"task": task.name, "scenario": scenario, "seed": seed}
            for arm, losses in arms(filtered, refit_losses(stream)).items():
                rows += [
                    {**place, "arm": arm, "step": step, "nll": loss / batch_size}
                    for step, loss in enumerate(losses)
                ]
            for noise, losses, score in zip(NOISES, filtered.values, filtered.scores, strict=True):
                best = losses.sum(1).min() / stream.labels.numel()
                numbers = {"nll_at_best_scale": best, "prequential_score": score[0], "log_evidence": score[1]}
                profile.append({**place, "process_noise": noise, **numbers})
    return pd.DataFrame(rows), pd.DataFrame(profile)


def interval(values: np.ndarray) -> str:
    """Mean and half-width of the 95 % interval of the mean over seeds (Student's t)."""
    if len(values) < 2:
        return f"{values.mean():.4f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.4f} ± {half:.4f}"


def summary(table: pd.DataFrame, profile: pd.DataFrame) -> str:
    """NLL per label by arm, paired differences, and the profile: prequential score beside the evidence."""
    lines = [f"| stream | arm | NLL per label | above {REFERENCE} |", "|---|---|---|---|"]
    for scenario in SCENARIOS:
        own = table[table["scenario"] == scenario]
        wide = own.groupby(["seed", "arm"])["nll"].mean().unstack()
        for arm in own["arm"].unique():
            above = interval((wide[arm] - wide[REFERENCE]).to_numpy()) if arm != REFERENCE else ""
            lines.append(f"| {scenario} | {arm} | {interval(wide[arm].to_numpy())} | {above} |")
    lines += [
        "",
        "| stream | process noise | NLL at the best scale | prequential score | log evidence |",
        "|---|---|---|---|---|",
    ]
    for (scenario, noise), own in profile.groupby(["scenario", "process_noise"], sort=False):
        numbers = (own["nll_at_best_scale"], own["prequential_score"], own["log_evidence"])
        lines.append(f"| {scenario} | {noise:g} | " + " | ".join(f"{x.mean():.4f}" for x in numbers) + " |")
    return "\n".join(lines)


def draw(table: pd.DataFrame, profile: pd.DataFrame, path: Path) -> None:
    """Above, the NLL along the stream (mean over seeds and five batches); below, the profile."""
    with house_style():
        figure, axes = plt.subplots(2, len(SCENARIOS), figsize=(10, 6.4), layout="constrained")
        for column, scenario in enumerate(SCENARIOS):
            own = table[(table["scenario"] == scenario) & table["arm"].isin(PICTURED)]
            wide = own.pivot_table(index="step", columns="arm", values="nll")[list(PICTURED)]
            smooth = wide.rolling(5, min_periods=1).mean()
            sns.lineplot(smooth, ax=axes[0, column], palette="colorblind", legend=column == 0)
            axes[0, column].set(
                title=f"{scenario}: NLL along the stream", xlabel="batch", ylabel="nats a label"
            )
            means = profile[profile["scenario"] == scenario].groupby("process_noise").mean(numeric_only=True)
            place = np.maximum(means.index.to_numpy(), min(n for n in NOISES if n > 0) / 10)
            below = axes[1, column]
            for name, style in (("prequential_score", "o-"), ("log_evidence", "s--")):
                below.plot(place, means[name] - means[name].iloc[0], style, label=name.replace("_", " "))
            gain = means["nll_at_best_scale"].iloc[0] - means["nll_at_best_scale"]
            below.plot(place, gain, "D:", label="score at the best scale")
            below.axhline(0, color="grey", linewidth=0.8)
            below.set(xscale="log", title=f"{scenario}: gain over no process noise", ylabel="nats a label")
            below.set_xlabel("process noise, as a multiple of the prior covariance")
            below.set_xticks(place, [f"{noise:g}" for noise in means.index])
            below.minorticks_off()
        axes[1, 0].legend()
        figure.savefig(path, dpi=130)
        plt.close(figure)


def write(name: str, table: pd.DataFrame, profile: pd.DataFrame, what: str) -> None:
    """The tables, the summary and the figure, in analysis/results."""
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"drifting_labels_{name}"
    totals = table.groupby(["task", "scenario", "seed", "arm"], sort=False)["nll"].mean().reset_index()
    totals.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    profile.to_csv(f"{stem}_profile.csv", index=False, float_format="%.6g")
    head = (
        f"{name}: {what}; mean over the seeds ± 95 % interval, differences paired by seed. "
        "Scores and evidence are nats a label.\n\n"
    )
    stem.with_suffix(".md").write_text(head + summary(table, profile) + "\n", encoding="utf-8")
    draw(table, profile, stem.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="digits, or a feature task (.npz, .safetensors)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=24, help="batches in the stream")
    parser.add_argument("--batch-size", type=int, default=20)
    asked = parser.parse_args()
    task = bc.load_task(asked.task)
    table, profile = study(task, asked.seeds, asked.steps, asked.batch_size)
    write(
        task.name, table, profile, f"{asked.steps} batches of {asked.batch_size} labels, seeds {asked.seeds}"
    )


if __name__ == "__main__":
    main()
