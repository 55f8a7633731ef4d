"""Every engine, covariance and update rule on one task: accuracy, cost, and distance to a reference.

    python analysis/engine_grid.py FEATURES.npz --shots 1 4 16

All at one prior variance (--prior-variance, 3e-3), one pass, probabilities by plug-in, so that rows differ by
inference alone. Reference: the posterior mode, and the exact marginals of the full-covariance Laplace there
(`laplace class_block` computes the diagonal blocks of the coupled posterior exactly). `mean off` is the root
mean square difference of the query logits' means in units of the reference's deviation, `deviation` the
geometric mean of the ratio of deviations. The columns `nuts` say the same against NUTS on the first three
classes. The full filter works in the span of the support set (exact: outside it the prior is untouched) up to
--most-full weights there, beyond which it is left out. Seconds are of processor time, fitting and predicting;
memory is the peak above what the process held before (what it had freed and not given back is not counted, so
it is a lower bound: gaussian/cost.py says what a covariance takes).

Writes analysis/results/engine_grid_<task>.csv and .md, a row as each ends; rows that are there are not run
again.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

import bayes_clip as bc
from bayes_clip.evaluation.metrics import auroc, ece, nll
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.batches import batches
from bayes_clip.inference.kalman import Batch, init
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.stream import run

RESULTS = Path(__file__).parent / "results"
KEY = ["shots", "seed", "engine", "covariance", "rule", "prior_variance"]
CUT = 3  # classes that NUTS is run on

Moments = tuple[Tensor, Tensor]  # mean and variance (M, C) of logits


@dataclass(frozen=True)
class Said:
    """What one fit says: logits of the query set and of the out-set (None without one), and its cost."""

    query: Moments
    outside: Moments | None
    seconds: float  # of processor time
    peak_mib: float


def arms() -> Iterator[tuple[str, str, str]]:
    """Engine, covariance and rule of every row."""
    for engine, covariances in ENGINE_COVARIANCES.items():
        for covariance in covariances or ("",):
            if engine != "ekf":
                yield engine, covariance, ""
                continue
            for rule in RULES:
                yield engine, covariance, rule
    yield "ekf", "diagonal", "kalman_clip"


def measured(work: Callable[[], tuple[Moments, Moments | None]]) -> Said:
    """Run `work`, and say what it took."""
    before = _resident()
    start = time.process_time()
    query, outside = work()
    return Said(query, outside, time.process_time() - start, max(0.0, _peak() - before))


def fitted(task: bc.Task, settings: bc.FitSettings) -> tuple[Moments, Moments | None]:
    """The posterior's logits."""
    posterior = bc.fit(task, settings).posterior
    sets = (task.query_features, task.ood_features)
    with torch.no_grad():
        query, outside = (
            None if rows is None else _moments(posterior.logits.logit_moments(rows)) for rows in sets
        )
    assert query is not None
    return query, outside


def full_in_span(task: bc.Task, settings: bc.FitSettings) -> tuple[Moments, Moments | None]:
    """The filter with a full covariance on the span of the support set; outside it the prior stands."""
    scale, variance = task.logit_scale, settings.prior_variance
    assert task.text_features is not None and variance is not None
    basis = torch.linalg.qr(task.support_features.double().mT).Q  # (D, r)
    text, design = task.text_features.double(), scale * task.support_features.double() @ basis
    mean = text @ basis
    state = init(mean.float(), torch.full_like(mean, variance).float(), "full")
    order = batches(task.support_labels, len(text), settings.order, None, settings.seed, "full")
    offset = scale * task.support_features.double() @ text.mT - design @ mean.mT
    data = [Batch(design[rows].float(), task.support_labels[rows], offset[rows]) for rows in order]
    belief = run(state, data, RULES[settings.update_rule])[0].belief

    def seen(rows: Tensor | None) -> Moments | None:
        if rows is None:
            return None
        inside = scale * rows.double() @ basis
        fixed = scale * rows.double() @ text.mT - inside @ mean.mT
        beyond = variance * ((scale * rows.double()).square().sum(-1) - inside.square().sum(-1))
        moments = belief.logit_moments(inside.float())
        return moments[0].double() + fixed, moments[1].double() + beyond[:, None]

    query = seen(task.query_features)
    assert query is not None
    return query, seen(task.ood_features)


def cut(task: bc.Task) -> bc.Task:
    """The first classes alone, without an out-set."""
    support, query = task.support_labels < CUT, task.query_labels < CUT
    assert task.text_features is not None
    return bc.make_task(
        f"{task.name}_{CUT}",
        task.support_features[support],
        task.support_labels[support],
        task.query_features[query],
        task.query_labels[query],
        class_names=task.class_names[:CUT],
        text_features=task.text_features[:CUT],
        logit_scale=task.logit_scale,
    )


def distance(said: Moments, reference: Moments) -> tuple[float, float]:
    """Root mean square difference of means in reference deviations; geometric mean ratio of deviations."""
    off = ((said[0] - reference[0]).square() / reference[1]).mean().sqrt()
    if not said[1].any():
        return float(off), float("nan")
    tiny = torch.finfo(torch.float64).tiny
    return float(off), float((said[1].clamp_min(tiny) / reference[1]).log().mean().div(2).exp())


def scores(task: bc.Task, said: Said) -> dict[str, float]:
    """Metrics of the plug-in probabilities, and of the novelty score."""
    probabilities = said.query[0].softmax(-1)
    chosen = probabilities.argmax(-1, keepdim=True)
    row = {
        "accuracy": float((chosen[:, 0] == task.query_labels).double().mean()),
        "nll": nll(probabilities.numpy(), task.query_labels.numpy()),
        "ece": ece(probabilities.numpy(), task.query_labels.numpy()),
    }
    if said.outside is not None:
        row["ood_auroc"] = auroc(_novelty(said.query).numpy(), _novelty(said.outside).numpy())
    return row


def _novelty(moments: Moments) -> Tensor:
    mean, variance = moments
    if not variance.any():
        return 1 - mean.softmax(-1).amax(-1)
    return (variance - mean).gather(1, mean.argmax(-1, keepdim=True))[:, 0]


def _moments(moments: Moments) -> Moments:
    return moments[0].double(), moments[1].double()


def _resident() -> float:
    """Mebibytes held now; the peak is counted anew from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name))) / 1024


def hardware() -> str:
    """Where the seconds were taken."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return f"{model}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, torch {torch.__version__}"


def markdown(table: pd.DataFrame) -> str:
    """The table for people, one block per number of shots."""
    names = {
        "engine": "engine", "covariance": "covariance", "rule": "rule", "accuracy": "accuracy", "nll": "NLL",
        "ece": "ECE", "ood_auroc": "OOD AUROC", "seconds": "CPU s", "peak_mib": "MiB", "mean_off": "mean off",
        "deviation": "deviation", "nuts_mean_off": "nuts: mean off", "nuts_deviation": "nuts: deviation",
    }  # fmt: skip
    blocks = []
    for shots, rows in table.groupby("shots"):
        shown = rows[list(names)].rename(columns=names)
        blocks.append(f"**{shots} shots**\n\n" + _markdown(shown))
    last = table.iloc[-1]
    legend = (
        f"Prior variance {last['prior_variance']:g}, one draw (seed {last['seed']}), plug-in probabilities. "
        "`mean off` and `deviation`: query logits against the mode with the exact marginals of the full "
        "Laplace covariance (root mean square difference in its deviations; geometric mean ratio of "
        "deviations). `nuts`: the same against NUTS on the first three classes. CPU seconds of fit and "
        f"prediction on {last['hardware']}; MiB is a lower bound of the peak. Joint covariances (full, "
        "kronecker, low_rank) take smaller batches than the others above 32 classes.\n"
    )
    return legend + "\n" + "\n\n".join(blocks) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if value != value else f"{value:.3f}" if abs(value) < 20 else f"{value:.0f}"
        return str(value)

    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior-variance", type=float, default=3e-3)
    parser.add_argument("--most-full", type=int, default=10_000, help="weights of a full covariance")
    asked = parser.parse_args()
    whole = bc.load_task(asked.task)
    path = RESULTS / f"engine_grid_{whole.name}.csv"
    table = (
        pd.read_csv(path, keep_default_na=False, na_values=["nan"])
        if path.is_file()
        else pd.DataFrame(columns=KEY)
    )
    done = {tuple(map(str, row)) for row in table[KEY].itertuples(index=False)}
    for shots in asked.shots:
        task = bc.few_shot(whole, shots, asked.seed)
        small = bc.few_shot(cut(whole), shots, asked.seed)
        base = bc.FitSettings(prior_variance=asked.prior_variance, predictive="plug_in", seed=asked.seed)
        exact = fitted(task, replace(base, engine="laplace"))[0]
        chain: Moments | None = None
        for engine, covariance, rule in arms():
            key = (shots, asked.seed, engine, covariance, rule, asked.prior_variance)
            if tuple(map(str, key)) in done or engine == "nuts":
                continue
            settings = replace(base, engine=engine, covariance=covariance or None, rule=rule or None)
            full = engine == "ekf" and covariance == "full"
            weights = task.num_classes * min(len(task.support_labels), task.num_features)
            if (full and weights > asked.most_full) or (engine, covariance) == ("laplace", "full"):
                continue  # laplace full has the marginals of laplace class_block
            way = full_in_span if full else fitted
            said = measured(partial(way, task, settings))
            chain = chain or fitted(small, replace(base, engine="nuts"))[0]
            row = dict(zip(KEY, key, strict=True)) | scores(task, said)
            row |= {"seconds": said.seconds, "peak_mib": said.peak_mib}
            row["mean_off"], row["deviation"] = distance(said.query, exact)
            near = distance(way(small, settings)[0], chain)
            row["nuts_mean_off"], row["nuts_deviation"] = near
            row["hardware"] = hardware()
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
            RESULTS.mkdir(exist_ok=True)
            table.to_csv(path, index=False, float_format="%.6g")
            path.with_suffix(".md").write_text(markdown(table), encoding="utf-8")


if __name__ == "__main__":
    main()
