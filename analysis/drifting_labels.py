"""Labels that drift through a stream: does process noise, chosen by the filter's own predictions, pay?

    python analysis/drifting_labels.py digits
    python analysis/drifting_labels.py FEATURES.npz --batch-size 47

What the classes look like turns by 90 degrees along the stream: little by little (slow), or at once in the
middle (abrupt). For digits the pictures are turned before pocket_clip encodes them; for a feature task each
class turns in the plane of its own mean direction and that of the next class. Every batch is predicted from
the batches before it, then learned; the score is the NLL per label (prequential). No arm sees a label early:
where something is chosen online, the choice for a batch is what scored best on all batches before it.

    filter, static          class_block covariance, rule `expected`; the covariance scale chosen online
    filter, first quarter   process noise and covariance scale chosen online in the first quarter, then kept
    filter, online          process noise and covariance scale chosen online
    refit map, online       the mode of the last W batches, refitted before every batch; W chosen online
    refit laplace, online   the same with Laplace's covariance; W and the covariance scale chosen online
    ..., in hindsight       the same with the one choice that was best over this whole stream: out of reach

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
from PIL import Image
from scipy import stats
from torch import Tensor

import bayes_clip as bc
from bayes_clip.data.digit_images import digit_images
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
REFERENCE = "filter, online"
PICTURED = ("filter, static", REFERENCE, "refit map, online", "refit laplace, online")
TURN = 90.0  # degrees, from the first batch to the last
TINY = 1e-30


@dataclass(frozen=True)
class Stream:
    """A linear head's batches in order; logits are design Wᵀ."""

    design: Tensor  # (T, b, D)
    labels: Tensor  # (T, b)
    prior_mean: Tensor  # (C, D)
    logit_variance: float  # of a logit at unit prior variance
    has_text: bool


@dataclass(frozen=True)
class Losses:
    """NLL of each batch, summed over its rows, by choice and covariance scale: (choices, scales, T)."""

    values: np.ndarray
    scores: np.ndarray  # (choices, 2) prequential score and log evidence per label; empty for refits


def angles(scenario: str, steps: int) -> np.ndarray:
    """Degrees (T,) by which the classes have turned at each batch."""
    along = np.linspace(0, 1, steps)
    return TURN * (along if scenario == "slow" else (along > 0.5).astype(float))


def make_stream(task: bc.Task, scenario: str, seed: int, steps: int, batch_size: int) -> Stream:
    """`steps` batches of rows of the task drawn without replacement, turned as the scenario says."""
    rows = np.concatenate([task.support_labels, task.query_labels])
    steps = min(steps, len(rows) // batch_size)
    order = np.random.default_rng(seed).permutation(len(rows))[: steps * batch_size]
    degrees = np.repeat(angles(scenario, steps), batch_size)
    if task.name == "digits":
        features, labels = turned_digits(order, degrees)
    else:
        features = turned_features(task, torch.as_tensor(order), torch.as_tensor(degrees))
        labels = torch.as_tensor(rows[order])
    scale = task.logit_scale
    text = task.text_features
    return Stream(
        (scale * features).reshape(steps, batch_size, -1),
        labels.reshape(steps, batch_size),
        torch.zeros(task.num_classes, task.num_features) if text is None else text,
        scale**2,
        text is not None,
    )


def turned_digits(order: np.ndarray, degrees: np.ndarray) -> tuple[Tensor, Tensor]:
    """Unit features (N, D) of digits turned counter-clockwise, and their labels (N,)."""
    images, labels = digit_images()
    pictures = (
        Image.fromarray(images[row]).rotate(angle, Image.Resampling.BICUBIC)
        for row, angle in zip(order, degrees, strict=True)
    )
    features = bc.load_backbone().encode_images(pictures, description="encoding digits", total=len(order))
    return torch.nn.functional.normalize(features, dim=-1), torch.from_numpy(labels[order])


def turned_features(task: bc.Task, order: Tensor, degrees: Tensor) -> Tensor:
    """Features (N, D), those of class c turned in the plane of its mean direction and that of class c + 1."""
    features = torch.cat([task.support_features, task.query_features])
    labels = torch.cat([task.support_labels, task.query_labels])
    means = torch.stack([features[labels == label].mean(0) for label in range(task.num_classes)])
    first = torch.nn.functional.normalize(means, dim=-1)
    second = first.roll(-1, dims=0)
    second = torch.nn.functional.normalize(second - (second * first).sum(-1, keepdim=True) * first, dim=-1)
    rows, u, w = features[order], first[labels[order]], second[labels[order]]
    along, across = (rows * u).sum(-1, keepdim=True), (rows * w).sum(-1, keepdim=True)
    cosine, sine = degrees.deg2rad().cos()[:, None].float(), degrees.deg2rad().sin()[:, None].float()
    return rows + (cosine - 1) * (along * u + across * w) + sine * (along * w - across * u)


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


def chosen_online(losses: np.ndarray, until: int | None = None) -> np.ndarray:
    """Losses (T,) of following, at each step, the choice with the least total loss before it.

    `losses` (choices, T); the first choice begins. From step `until` on the choice is kept.
    """
    before = np.cumsum(losses, axis=1) - losses
    best = before.argmin(axis=0)
    if until is not None:
        best[until:] = best[until]
    return losses[best, np.arange(losses.shape[1])]


def arms(filtered: Losses, refitted: Losses) -> dict[str, np.ndarray]:
    """Arm -> loss of each batch, (T,)."""
    steps = filtered.values.shape[-1]
    all_filters, all_refits = (one.values.reshape(-1, steps) for one in (filtered, refitted))
    modes = refitted.values[:, 0]
    return {
        "filter, static": chosen_online(filtered.values[0]),
        "filter, first quarter": chosen_online(all_filters, until=steps // 4),
        REFERENCE: chosen_online(all_filters),
        "filter, in hindsight": all_filters[all_filters.sum(1).argmin()],
        "refit map, online": chosen_online(modes),
        "refit map, in hindsight": modes[modes.sum(1).argmin()],
        "refit laplace, online": chosen_online(all_refits),
        "refit laplace, in hindsight": all_refits[all_refits.sum(1).argmin()],
    }


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
            below.set_xlabel("process noise (leftmost: 0)")
        axes[1, 0].legend()
        figure.savefig(path, dpi=130)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="digits, or a feature task (.npz, .safetensors)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=40, help="batches in the stream")
    parser.add_argument("--batch-size", type=int, default=20)
    asked = parser.parse_args()
    task = bc.load_task(asked.task)
    table, profile = study(task, asked.seeds, asked.steps, asked.batch_size)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"drifting_labels_{task.name}"
    totals = table.groupby(["task", "scenario", "seed", "arm"], sort=False)["nll"].mean().reset_index()
    totals.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.6g")
    profile.to_csv(f"{stem}_profile.csv", index=False, float_format="%.6g")
    head = (
        f"{task.name}: {asked.steps} batches of {asked.batch_size} labels, seeds {asked.seeds}; "
        "mean over the seeds ± 95 % interval, differences paired by seed. "
        "Scores and evidence are nats a label.\n\n"
    )
    stem.with_suffix(".md").write_text(head + summary(table, profile) + "\n", encoding="utf-8")
    draw(table, profile, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
