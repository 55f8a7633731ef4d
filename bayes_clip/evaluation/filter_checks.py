"""The filter's innovations on streams from the program's own prior: labels, or numbers on the logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.evaluation.consistency import (
    Consistency,
    Innovation,
    consistency,
    gaussian_innovation,
    label_innovation,
)
from bayes_clip.evaluation.simulated import program_of, seed_of, simulate
from bayes_clip.gaussian import Belief
from bayes_clip.inference import kalman
from bayes_clip.inference.linearised import AnyBatch, CurvedBatch, projected
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.rules import find_rule
from bayes_clip.inference.stream import run
from bayes_clip.observation import SOFTMAX, Gaussian, Observation
from bayes_clip.progress import track
from bayes_clip.settings import FitSettings

NOISE_VARIANCE = 1.0  # of a number observed on a logit

# belief before the batch, batch, seed -> what the batch said
Judge = Callable[[Belief, AnyBatch, int], Innovation]


@torch.no_grad()
def label_consistency(
    task: Task, settings: FitSettings, prior_logit_variance: float, simulations: int, seed: int = 0
) -> Consistency:
    """Consistency of the filter of `settings` on labels drawn from its program at v = that over s².

    Rows come as they stand: an order that looks at labels, such as the balanced one, knows more of a row
    than its prediction does. Logits that are not linear are predicted by linearising at the mean.
    """
    model = program_of(task, settings.model, prior_logit_variance / task.logit_scale**2)
    inputs = task.support_features.double()
    program = read_program(model, inputs)
    streams = []
    for index in track(range(simulations), "Filtering simulated labels"):
        own = seed_of(seed, index)
        _, labels = simulate(model, inputs, own)
        data = _batches(program, inputs, labels, settings.batch_size)
        streams.append(_stream(program, data, settings, SOFTMAX, _of_labels, own))
    return consistency(streams)


@torch.no_grad()
def gaussian_consistency(
    task: Task, settings: FitSettings, prior_logit_variance: float, simulations: int, seed: int = 0
) -> Consistency:
    """The same on numbers y ~ N(logits, 1), for which the filter is exact: what fails is the covariance.

    Every logit of every row is observed, so `full` must pass, and `class_block` with it.
    """
    model = program_of(task, settings.model, prior_logit_variance / task.logit_scale**2)
    inputs = task.support_features.double()
    program = read_program(model, inputs)
    observation = Gaussian(torch.tensor(NOISE_VARIANCE, dtype=torch.float64))
    unlabelled = torch.zeros(len(inputs), dtype=torch.long)
    streams = []
    for index in track(range(simulations), "Filtering simulated numbers"):
        values = _values(program, inputs, seed_of(seed, index))
        data = _batches(program, inputs, unlabelled, settings.batch_size)
        data = [
            replace(batch, labels=said)
            for batch, said in zip(data, values.split(len(data[0].labels)), strict=True)
        ]
        streams.append(_stream(program, data, settings, observation, _of_numbers, index))
    return consistency(streams)


def _stream(
    program: Program,
    data: list[AnyBatch],
    settings: FitSettings,
    observation: Observation,
    judge: Judge,
    seed: int,
) -> list[Innovation]:
    """Judge every batch by the belief before it, then learn it."""
    state = kalman.init(program.prior_mean, program.prior_variance, settings.family)
    rule, found = find_rule(settings.update_rule), []
    for index, batch in enumerate(data):
        found.append(judge(state.belief, batch, seed_of(seed, index)))
        state, _ = run(state, [batch], rule, observation=observation)
    return found


def _of_labels(belief: Belief, batch: AnyBatch, seed: int) -> Innovation:
    flat = batch.at(belief.mean) if isinstance(batch, CurvedBatch) else batch
    _, seen = projected(belief, flat)
    return label_innovation(seen.logits, seen.gram, flat.design, flat.labels, seed)


def _of_numbers(belief: Belief, batch: AnyBatch, seed: int) -> Innovation:
    flat = batch.at(belief.mean) if isinstance(batch, CurvedBatch) else batch
    _, seen = projected(belief, flat)
    return gaussian_innovation(seen.logits, seen.gram, flat.design, flat.labels, NOISE_VARIANCE)


def _batches(program: Program, inputs: Tensor, labels: Tensor, batch_size: int | None) -> list[AnyBatch]:
    size = batch_size or len(inputs)
    pairs = zip(inputs.split(size), labels.split(size), strict=True)
    return [program.batch(rows, said) for rows, said in pairs]


def _values(program: Program, inputs: Tensor, seed: int) -> Tensor:
    """Numbers (N, C) observed on the logits of weights drawn from the prior."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(program.prior_mean.shape, generator=generator, dtype=inputs.dtype)
    logits = program.logits(program.prior_mean + program.prior_variance.sqrt() * noise, inputs)
    error = torch.randn(logits.shape, generator=generator, dtype=inputs.dtype)
    return logits + NOISE_VARIANCE**0.5 * error
