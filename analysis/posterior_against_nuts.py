"""How far is each engine's posterior from the exact one? Three classes in low dimension, against NUTS.

    python analysis/posterior_against_nuts.py FEATURES.npz

Cuts the task to its first three classes and to the leading axes of their support and text features, so that a
chain can be long. For every number of shots, prior variance and engine: distance of means (in posterior
standard deviations) and of standard deviations (as a fraction), over all weights, over the logits of the
query rows, and over these logits minus their mean over classes. Only the last decide probabilities: what is
common to all classes of a row is left open by the labels, and a covariance that couples no classes loses it.
Nothing is chosen by query labels. Writes analysis/results/posterior_against_nuts_<task>.csv and .md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd
import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

import bayes_clip as bc
from bayes_clip.model import Context, find_model
from bayes_clip.progress import track

CLASSES, AXES = 3, 4
VARIANCES = (1e-3, 1e-2, 1e-1)
DRAWS, WARMUP = 600, 200
GUIDE_DRAWS = 4000
MEAN_WITHIN, DEVIATION_WITHIN = 0.1, 0.1
ENGINES = {
    "laplace full": {"engine": "laplace", "covariance": "full"},
    "laplace class_block": {"engine": "laplace", "covariance": "class_block"},
    "laplace kronecker": {"engine": "laplace", "covariance": "kronecker"},
    "laplace diagonal": {"engine": "laplace", "covariance": "diagonal"},
    "ekf full": {"engine": "ekf", "covariance": "full"},
    "ekf full iterated": {"engine": "ekf", "covariance": "full", "rule": "iterated"},
    "ekf full plain": {"engine": "ekf", "covariance": "full", "rule": "plain"},
    "ekf class_block": {"engine": "ekf", "covariance": "class_block"},
    "ekf kronecker": {"engine": "ekf", "covariance": "kronecker"},
    "ekf low_rank": {"engine": "ekf", "covariance": "low_rank"},
    "ekf diagonal": {"engine": "ekf", "covariance": "diagonal"},
    "ekf diagonal_variational": {"engine": "ekf", "covariance": "diagonal_variational"},
    "vi low_rank": {"engine": "vi", "covariance": "low_rank"},
    "vi diagonal": {"engine": "vi", "covariance": "diagonal"},
}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Moments:
    """Means and deviations of the weights (C, D), of the query rows' logits and of their contrasts."""

    weight: tuple[Tensor, Tensor]  # (C, D)
    logit: tuple[Tensor, Tensor]  # (N, C)
    contrast: tuple[Tensor, Tensor]  # (N, C) logits minus their mean over classes


def cut(task: bc.Task, classes: int = CLASSES, axes: int = AXES) -> bc.Task:
    """The first classes, on the leading principal axes of their support and text features."""
    support, query = task.support_labels < classes, task.query_labels < classes
    text = task.text_features[:classes].double()
    rows = task.support_features[support].double()
    turn = torch.linalg.svd(torch.cat([rows, text]), full_matrices=False).Vh[:axes].mT
    return bc.make_task(
        task.name,
        rows @ turn,
        task.support_labels[support],
        task.query_features[query].double() @ turn,
        task.query_labels[query],
        class_names=task.class_names[:classes],
        text_features=text @ turn,
        logit_scale=task.logit_scale,
    )


def chain(task: bc.Task, variance: float, draws: int = DRAWS, warmup: int = WARMUP) -> tuple[Moments, float]:
    """Moments by Pyro's NUTS on the model program, and the smallest number of effective draws."""
    text = task.text_features.double()
    program = find_model("linear_probe")(Context(text, task.class_names, task.logit_scale), variance)
    torch.manual_seed(0)
    with pyro.validation_enabled(False):
        sampler = MCMC(
            NUTS(program, full_mass=True, jit_compile=True, ignore_jit_warnings=True),
            num_samples=draws,
            warmup_steps=warmup,
            disable_progbar=True,
        )
        sampler.run(task.support_features.double(), task.support_labels)
    weights = sampler.get_samples()["class_weights"]
    effective = float(sampler.diagnostics()["class_weights"]["n_eff"].min())
    return moments(task, weights), min(effective, float(draws))


def moments(task: bc.Task, weights: Tensor) -> Moments:
    """Moments over draws of the weights (S, C, D)."""
    logits = task.logit_scale * torch.einsum("nd,scd->snc", task.query_features.double(), weights)
    contrasts = logits - logits.mean(-1, keepdim=True)
    parts = ((values.mean(0), values.std(0)) for values in (weights, logits, contrasts))
    return Moments(*parts)


def fitted(task: bc.Task, variance: float, chosen: dict[str, str]) -> Moments:
    """Moments of an engine's posterior at this prior variance, in float64."""
    settings = bc.FitSettings(**chosen, prior_variance=variance, dtype="float64", predictive="plug_in")
    posterior = bc.fit(task, settings).posterior
    torch.manual_seed(0)
    drawn = moments(
        task, posterior.get_posterior().sample((GUIDE_DRAWS,)).unflatten(-1, task.text_features.shape)
    )
    predicted = posterior.predict(task.query_features)
    guide = posterior.get_posterior()
    weight = (part.reshape(task.text_features.shape) for part in (guide.mean, guide.variance.sqrt()))
    return replace(drawn, weight=tuple(weight), logit=(predicted.logit_mean, predicted.logit_variance.sqrt()))


def distances(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor], of: str) -> dict[str, float]:
    """Root mean square and largest distance of the means, in deviations, and of the deviations."""
    mean = ((found[0] - exact[0]) / exact[1]).abs()
    deviation = (found[1] / exact[1] - 1).abs()
    return {
        f"{of}_mean_rms": float(mean.square().mean().sqrt()),
        f"{of}_mean_worst": float(mean.max()),
        f"{of}_deviation_rms": float(deviation.square().mean().sqrt()),
        f"{of}_deviation_worst": float(deviation.max()),
    }


def study(
    task: bc.Task,
    shots: list[int],
    seeds: list[int],
    variances: tuple[float, ...] = VARIANCES,
    draws: int = DRAWS,
) -> Iterator[pd.DataFrame]:
    """One row per number of shots, draw, prior variance and engine; the table so far after every chain."""
    rows, whole = [], cut(task)
    for count, seed, variance in track(list(product(shots, seeds, variances)), "Against NUTS"):
        drawn = bc.few_shot(whole, count, seed)
        exact, effective = chain(drawn, variance, draws)
        place = {"task": task.name, "shots": count, "seed": seed, "prior_variance": variance}
        for name, chosen in ENGINES.items():
            found = fitted(drawn, variance, chosen)
            measured = {
                key: value
                for part in ("weight", "logit", "contrast")
                for key, value in distances(getattr(found, part), getattr(exact, part), part).items()
            }
            rows.append({**place, "arm": name, **measured, "reference_error": effective**-0.5})
        yield pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Root mean square distances by arm, shots and prior variance, as Markdown: weights, then contrasts."""
    places = sorted(set(zip(table["shots"], table["prior_variance"], strict=True)))
    head = (
        f"Root mean square distance from NUTS of means (in posterior deviations) / of deviations, mean of "
        f"seeds {sorted(set(table['seed']))}, {table['task'].iloc[0]}, {CLASSES} classes, {AXES} axes. "
        f"The chain's own error is {table['reference_error'].max():.2f} deviations at most. "
        f"Bold: within {MEAN_WITHIN:g} and {DEVIATION_WITHIN:.0%}.\n"
    )
    parts = [head]
    for part, title in (("weight", "Weights"), ("contrast", "Logits of query rows, minus their mean")):
        parts.append(
            f"| {title} | "
            + " | ".join(f"{shots} shots, v={variance:g}" for shots, variance in places)
            + " |"
        )
        parts.append("|---|" + "---|" * len(places))
        for arm in dict.fromkeys(table["arm"]):
            cells = [_cell(table[table["arm"] == arm], part, *place) for place in places]
            parts.append(f"| {arm} | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _cell(arm: pd.DataFrame, part: str, shots: int, variance: float) -> str:
    here = arm[(arm["shots"] == shots) & (arm["prior_variance"] == variance)]
    mean, deviation = here[f"{part}_mean_rms"].mean(), here[f"{part}_deviation_rms"].mean()
    text = f"{mean:.2f} / {100 * deviation:.0f} %"
    return f"**{text}**" if mean < MEAN_WITHIN and deviation < DEVIATION_WITHIN else text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", help="a feature task (.npz, .safetensors) or a built-in task")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    task = bc.load_task(asked.task)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"posterior_against_nuts_{task.name}"
    for table in study(task, asked.shots, asked.seeds):  # written after every chain: they take minutes
        table.to_csv(stem.with_suffix(".csv"), index=False, float_format="%.4g")
        stem.with_suffix(".md").write_text(summary(table), encoding="utf-8")


if __name__ == "__main__":
    main()
