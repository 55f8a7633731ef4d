from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from small_problems import assert_near
from torch import Tensor

from bayes_clip.gaussian import Full
from bayes_clip.gaussian.noise import keys_of
from bayes_clip.gaussian.point import Draws, Point
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.program_logits import ProgramLogits

INPUTS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
COVARIANCE = torch.diag(torch.linspace(0.01, 0.04, 6, dtype=torch.float64)) + 0.005


def curved(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    weights = pyro.sample("weights", dist.Normal(torch.ones(2, 3).to(inputs), 1.0).to_event(2))
    with pyro.plate("data", len(inputs)):
        return pyro.sample(
            "labels", dist.Categorical(logits=torch.tanh(inputs @ weights.mT) ** 3), obs=labels
        )


def drawn(known: ProgramLogits, count: int) -> Tensor:
    blocks = known.predicted_logits(INPUTS).streamed(keys_of(INPUTS), count, 100)
    return torch.cat([block.clone() for block in blocks])


@pytest.fixture
def program() -> Program:
    return read_program(curved, INPUTS)


def test_a_gaussian_is_seen_through_the_logits_linearised_at_its_mean(program: Program) -> None:
    weights = Full(program.prior_mean + 0.1, COVARIANCE)
    mean, variance = ProgramLogits(program, weights).logit_moments(INPUTS)
    design, _ = program.linearise(INPUTS, weights.mean)
    assert_near(mean, program.logits(weights.mean, INPUTS))
    assert_near(variance, torch.einsum("ncp,pq,ncq->nc", design, COVARIANCE, design))
    draws = drawn(ProgramLogits(program, weights), 2000)
    assert_near(draws.mean(0), mean, 0.02)
    assert_near(draws.var(0), variance, 0.02)


def test_chunks_by_memory_change_nothing(program: Program) -> None:
    for weights in (Full(program.prior_mean, COVARIANCE), Point(program.prior_mean)):
        known = ProgramLogits(program, weights)
        for part, once in zip(
            known.logit_moments(INPUTS, budget=1), known.logit_moments(INPUTS), strict=True
        ):
            assert_near(part, once)


def test_points_and_draws_go_through_the_program_itself(program: Program) -> None:
    point = ProgramLogits(program, Point(program.prior_mean))
    mean, variance = point.logit_moments(INPUTS)
    assert_near(mean, program.logits(program.prior_mean, INPUTS))
    assert not variance.any()
    samples = program.prior_mean + torch.arange(4.0).double()[:, None]
    every = torch.stack([program.logits(weights, INPUTS) for weights in samples])
    chain = ProgramLogits(program, Draws(samples))
    assert_near(chain.logit_moments(INPUTS)[0], every.mean(0))
    assert_near(chain.logit_moments(INPUTS)[1], every.var(0, correction=0))
    assert_near(drawn(chain, 4), every)
    assert_near(drawn(chain, 2), every[[0, 3]])
    assert_near(drawn(point, 3), mean.expand(3, -1, -1))
