"""Laplace of programs that are no softmax head, against the precision written out."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from naive_twins import diagonal_blocks, jacobian
from small_problems import assert_near
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.inference.laplace import laplace_of_program
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.program_mode import mode_of_program

INPUTS = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.arange(10) % 3


def one_against_the_rest(inputs: Tensor, labels: Tensor | None = None) -> Tensor:
    zero = torch.zeros(3, inputs.shape[-1]).to(inputs)
    weights = pyro.sample("weights", dist.Normal(zero, 0.7).to_event(2))
    switches = None if labels is None else torch.eye(3).to(inputs)[labels]
    with pyro.plate("data", len(inputs)):
        return pyro.sample("labels", dist.Bernoulli(logits=2 * inputs @ weights.mT).to_event(1), obs=switches)


@pytest.fixture
def program() -> Program:
    return read_program(one_against_the_rest, INPUTS)


def precision(program: Program, mode: Tensor) -> Tensor:
    rows = jacobian(program.design(INPUTS), 3)
    chance = program.logits(mode, INPUTS).sigmoid()
    curvature = torch.diag_embed(chance * (1 - chance))
    information = torch.einsum("nip,nij,njq->pq", rows, curvature, rows)
    return torch.diag(1 / program.prior_variance.reshape(-1)) + information


def test_every_covariance_inverts_its_part_of_the_precision(program: Program) -> None:
    assert program.is_head
    mode = mode_of_program(program, INPUTS, program.targets(INPUTS, LABELS))
    wanted = precision(program, mode)
    full = laplace_of_program("full", program, INPUTS, mode)
    assert_near(full.covariance, torch.linalg.inv(wanted))
    blocks = laplace_of_program("class_block", program, INPUTS, mode)
    assert_near(blocks.covariance, diagonal_blocks(torch.linalg.inv(wanted), 3))
    diagonal = laplace_of_program("diagonal", program, INPUTS, mode)
    assert_near(diagonal.variance.reshape(-1), 1 / wanted.diagonal())


def test_kronecker_is_refused_by_name(program: Program) -> None:
    with pytest.raises(UserError, match="one_against_the_rest: laplace with --covariance kronecker"):
        laplace_of_program("kronecker", program, INPUTS, program.prior_mean)
