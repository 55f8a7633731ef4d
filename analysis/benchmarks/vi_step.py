"""Case `vi_step`: one gradient step on the ELBO with a low-rank (rank 10) Gaussian guide.

Ours is the `vi` engine, which drives Pyro's own AutoLowRankMultivariateNormal: what is measured is what the
engine adds or saves around it. The peer is the loop of Pyro's documentation: the same model program, guide,
start and step sizes, nothing else set. Agreement: ELBO of ours against the peer's after the timed steps, each
averaged over the same draws of their guides; relative difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, init_to_value
from pyro.optim import ClippedAdam
from torch import Tensor
from torch.nn.functional import cross_entropy

from analysis.benchmarks.contest import Contest, Size, Work
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.peers import titled
from bayes_clip.gaussian.point import LowRank
from bayes_clip.inference import variational as engine
from bayes_clip.inference.program import read_program
from bayes_clip.model import AdapterModel, context_of, find_model

PRIOR_VARIANCE = 1e-3
STEPS = 10  # of a run; seconds are of one, and contain a tenth of making the guide, on both sides
DRAWS = 64
TOLERANCE = 0.02  # relative
SEED = 0


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """One contest."""
    task = clip_like_task(size.classes, size.features, size.rows, size.classes)
    assert task.text_features is not None
    text = task.text_features.to(device)
    context = context_of(text, task.class_names, task.logit_scale, task.num_features)
    model = find_model("linear_probe")(context, PRIOR_VARIANCE)
    inputs, labels = task.support_features.to(device), task.support_labels.to(device)
    program = read_program(model, inputs)

    def ours() -> LowRank:
        found = engine.variational(model, program, inputs, labels, "low_rank", SEED, STEPS)
        assert isinstance(found, LowRank)
        return found

    def agreement(ours: LowRank, theirs: LowRank) -> float:
        bounds = [
            elbo(found, model.text_features, model.logit_scale * inputs, labels) for found in (ours, theirs)
        ]
        return abs(bounds[0] - bounds[1]) / abs(bounds[1])

    yield Contest(
        case=f"vi_step@{size}",
        ours=ours,
        peers={
            titled("pyro-ppl", "SVI AutoLowRankMultivariateNormal"): lambda: _theirs(model, inputs, labels)
        },
        agreement=agreement,
        tolerance=TOLERANCE,
        work=work(size),
        parts=STEPS,
    )


def work(size: Size) -> Work:
    """Logits and their gradient (4 N C D); a draw and its density (8 P r), and their gradients (16 P r).

    Bytes: location, scale and factor, their gradients and two moments of Adam, read and written.
    """
    numbers = size.classes * size.features
    flops = 4 * size.rows * numbers + 24 * numbers * engine.RANK
    return Work(flops, 4 * 8 * numbers * (engine.RANK + 2))


def elbo(found: LowRank, mean: Tensor, design: Tensor, labels: Tensor) -> float:
    """E_q[log p(y, w) − log q(w)] in nats, averaged over the same standard normal numbers at every call."""
    generator = torch.Generator().manual_seed(SEED)
    flat, factor = found.mean.reshape(-1), found.factor.reshape(found.mean.numel(), -1)
    guide = torch.distributions.LowRankMultivariateNormal(flat, factor, found.variance.reshape(-1))
    wide = torch.randn(DRAWS, factor.shape[1], generator=generator).to(flat)
    own = torch.randn(DRAWS, len(flat), generator=generator).to(flat)
    draws = flat + wide @ factor.mT + found.variance.reshape(-1).sqrt() * own
    weights = draws.reshape(DRAWS, *mean.shape)
    prior = torch.distributions.Normal(mean.to(flat), PRIOR_VARIANCE**0.5).log_prob(weights).sum((1, 2))
    logits = design @ weights.mT
    fit = torch.stack([-cross_entropy(rows, labels, reduction="sum") for rows in logits])
    return float((fit + prior - guide.log_prob(draws)).mean())


def _theirs(model: AdapterModel, inputs: Tensor, labels: Tensor) -> LowRank:
    """Pyro's own loop, with our start and step sizes."""
    deviation = PRIOR_VARIANCE**0.5
    start = init_to_value(values={"class_weights": model.text_features.clone()})

    def rates(name: str) -> dict[str, float]:
        rate = engine.SCALE_STEP if "scale" in name else engine.STEP_PER_DEVIATION * deviation
        return {"lr": rate, "lrd": engine.FINAL_RATE ** (1 / STEPS)}

    pyro.clear_param_store()
    pyro.set_rng_seed(SEED)
    guide = AutoLowRankMultivariateNormal(model, start, engine.START_SCALE * deviation, rank=engine.RANK)
    optimizer: Any = ClippedAdam(rates)  # type: ignore[arg-type]  # a function of the name will do
    svi = SVI(model, guide, optimizer, Trace_ELBO())
    for _ in range(STEPS):
        svi.step(inputs, labels)
    found, shape = guide.get_posterior(), model.text_features.shape
    return LowRank(
        found.loc.detach().reshape(shape),
        found.cov_diag.detach().reshape(shape),
        found.cov_factor.detach().reshape(*shape, -1),
    )
