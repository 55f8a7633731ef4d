from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_problems import assert_near
from torch import Tensor

from bayes_clip.gaussian import Full
from bayes_clip.gaussian.point import Draws, Point
from bayes_clip.inference import program_logits
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.program_logits import ProgramLogits

INPUTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NOISE = torch.randn(2000, 7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
COVARIANCE = torch.diag(torch.linspace(0.01, 0.04, 6, dtype=torch.float64)) + 0.005


def curved(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    weights = pyro.sample("weights", dist.Normal(torch.ones(2, 3).to(inputs), 1.0).to_event(2))
    with pyro.plate("data", len(inputs)):
        return pyro.sample(
            "labels", dist.Categorical(logits=torch.tanh(inputs @ weights.mT) ** 3), obs=labels
        )


@pytest.fixture
def program() -> Program:
    return read_program(curved, INPUTS)


def test_a_gaussian_is_seen_through_the_logits_linearised_at_its_mean(program: Program) -> None:
    weights = Full(program.prior_mean + 0.1, COVARIANCE)
    mean, variance = ProgramLogits(program, weights).logit_moments(INPUTS)
    design, _ = program.linearise(INPUTS, weights.mean)
    assert_near(mean, program.logits(weights.mean, INPUTS))
    assert_near(variance, torch.einsum("ncp,pq,ncq->nc", design, COVARIANCE, design))
    draws = ProgramLogits(program, weights).sample_logits(INPUTS, NOISE)
    assert_near(draws.mean(0), mean, 0.02)
    assert_near(draws.var(0), variance, 0.02)


def test_chunks_by_memory_change_nothing(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ProgramLogits(program, Full(program.prior_mean, COVARIANCE))
    whole = (*known.logit_moments(INPUTS), known.sample_logits(INPUTS, NOISE))
    monkeypatch.setattr(program_logits, "BYTES_PER_CHUNK", 1)
    for part, once in zip(
        (*known.logit_moments(INPUTS), known.sample_logits(INPUTS, NOISE)), whole, strict=True
    ):
        assert_near(part, once)


def test_points_and_draws_go_through_the_program_itself(program: Program) -> None:
    point = ProgramLogits(program, Point(program.prior_mean))
    mean, variance = point.logit_moments(INPUTS)
    assert_near(mean, program.logits(program.prior_mean, INPUTS))
    assert not variance.any()
    samples = program.prior_mean + torch.arange(4.0).double()[:, None]
    every = torch.stack([program.logits(weights, INPUTS) for weights in samples])
    drawn = ProgramLogits(program, Draws(samples))
    assert_near(drawn.logit_moments(INPUTS)[0], every.mean(0))
    assert_near(drawn.logit_moments(INPUTS)[1], every.var(0, correction=0))
    assert_near(drawn.sample_logits(INPUTS, NOISE[:4]), every)
