"""Point estimates for prior_and_predictive.py: the mode, and what is said to repair its probabilities."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from prior_said import Said, means_of, of_point, problem_of
from torch import Tensor

import bayes_clip as bc
from bayes_clip.inference.held_out import held_out, searched
from bayes_clip.predictive import entropy

GRID = (10.0, 30.0, 50.0, 100.0, 200.0, 300.0, 500.0, 1000.0)  # s² v, among which MAP's oracle chooses
MEMBERS = 5
TEMPERATURES = np.exp(np.linspace(math.log(0.4), math.log(2.5), 64))


def points(drawn: bc.Task, seed: int) -> Iterator[Said]:
    """Zero-shot and the mode, with what repairs it: temperature, logit range, and an ensemble."""
    zero = means_of(drawn, bc.fit(drawn, bc.FitSettings(engine="zero_shot")))
    yield of_point("zero-shot", zero)
    labels, scale = drawn.query_labels, drawn.logit_scale**2
    found: list[tuple[float, Said]] = []
    for logit_variance in GRID:
        settings = bc.FitSettings(engine="map", prior_variance=logit_variance / scale)
        fixed = means_of(drawn, bc.fit(drawn, settings))
        loss = torch.nn.functional.cross_entropy(fixed[0], labels)
        found.append((float(loss), of_point("map, best fixed", fixed, logit_variance / scale)))
    yield min(found, key=lambda each: each[0])[1]
    start = time.process_time()
    fit = bc.fit(drawn, bc.FitSettings(engine="map"))
    variance, spent = fit.tuned.prior_variance, time.process_time() - start
    mean, far = means_of(drawn, fit)
    yield of_point("map, folds", (mean, far), variance, seconds=spent)
    temperature = temperature_by_folds(drawn, variance)
    yield of_point("map + temperature", (mean / temperature, far / temperature), variance, temperature)
    yield of_point("map + SaLS", (in_range_of(mean, zero[0]), in_range_of(far, zero[1])), variance)
    yield ensemble(drawn, variance, seed)


def in_range_of(logits: Tensor, reference: Tensor) -> Tensor:
    """Logits (N, C) with each row's range that of the reference (SaLS: Murugesan et al., ECCV 2024)."""
    return logits * ((_range(reference) / _range(logits).clamp_min(1e-12))[:, None])


def temperature_by_folds(drawn: bc.Task, variance: float) -> float:
    """The temperature that left-out balanced folds of the mode like best; 1 at one shot."""
    problem = searched(problem_of(drawn, variance))
    folds = held_out(problem, bc.FitSettings(engine="map"))
    if folds is None:
        return 1.0
    mean = folds(variance)[0]
    losses = [float(torch.nn.functional.cross_entropy(mean / each, problem.labels)) for each in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def ensemble(drawn: bc.Task, variance: float, seed: int) -> Said:
    """Modes on resamples of the support rows with replacement, averaged; doubt is what they disagree by."""
    generator, start = torch.Generator().manual_seed(seed), time.process_time()
    inside, outside = [], []
    for _ in range(MEMBERS):
        count = len(drawn.support_labels)
        rows = torch.randint(count, (count,), generator=generator).sort().values
        fit = bc.fit(drawn.with_support(rows), bc.FitSettings(engine="map", prior_variance=variance))
        near, far = means_of(drawn, fit)
        inside.append(near.softmax(-1))
        outside.append(far.softmax(-1))
    near, far = torch.stack(inside), torch.stack(outside)
    aleatoric = entropy(near).mean(0), entropy(far).mean(0)
    epistemic = entropy(near.mean(0)) - aleatoric[0], entropy(far.mean(0)) - aleatoric[1]
    confidence = 1 - near.mean(0).amax(-1), 1 - far.mean(0).amax(-1)
    doubts = {
        "confidence": confidence,
        "aleatoric": aleatoric,
        "epistemic": epistemic,
        "novelty": epistemic,
    }
    return Said("map, ensemble", near.mean(0), doubts, variance, seconds=time.process_time() - start)


def _range(logits: Tensor) -> Tensor:
    return logits.amax(-1) - logits.amin(-1)
