"""Jacobians through each encoder once are those taken row by row."""

from __future__ import annotations

import pytest
import torch
from small_problems import assert_near
from tiny_clip import tiny_backbone
from torch import Tensor

from bayes_clip.inference import text_side
from bayes_clip.inference.program import read_program
from bayes_clip.inference.text_side import Remembered, two_towers
from bayes_clip.model import Context, TwoTowerModel, find_model

NAMES = ("zero", "a green two", "square")
PROGRAMS = ("coop", "coop_class", "contcoop", "lora")


def made(name: str) -> TwoTowerModel:
    backbone = tiny_backbone()
    model = find_model(name)(
        Context(
            torch.zeros(3, 8).double(), NAMES, 20.0, width=inputs_for(name, 1).shape[1], encoder=backbone
        ),
        0.3,
    )
    assert isinstance(model, TwoTowerModel)
    return model


def inputs_for(name: str, rows: int) -> Tensor:
    width = 3 * 16 * 16 if name == "lora" else 8
    values = torch.randn(rows, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return values if name == "lora" else torch.nn.functional.normalize(values, dim=-1)


@pytest.mark.parametrize("budget", [2**28, 1])
@pytest.mark.parametrize("rows", [3, 11])  # fewer than the 8 features, and more
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_jacobian_is_the_one_taken_row_by_row(
    name: str, rows: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_side, "BYTES_PER_CHUNK", budget)
    model, inputs = made(name), inputs_for(name, rows)
    program = read_program(model, inputs)
    noise = torch.randn(len(program.prior_mean), generator=torch.Generator().manual_seed(2)).double()
    at = program.prior_mean + program.prior_variance.sqrt() * noise

    def one(flat: Tensor, row: Tensor) -> Tensor:
        logits = model.logits(program.values(flat), row[None])[0]
        return logits - logits.mean()

    twin = torch.stack([torch.func.jacrev(one)(at, row) for row in inputs])
    jacobian, offset = program.linearise(inputs, at)
    assert_near(jacobian, twin, 1e-9)
    assert float(jacobian.abs().max()) > 1e-3
    logits = torch.stack([one(at, row) for row in inputs])
    assert offset is not None
    assert_near(torch.einsum("bkp,p->bk", jacobian, at) + offset, logits, 1e-9)


def test_class_features_are_taken_once_for_each_set_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("coop")
    seen = []
    whole = type(model).features_of
    monkeypatch.setattr(
        type(model), "features_of", lambda self, *given: (seen.append(1), whole(self, *given))[1]
    )
    program = read_program(model, inputs_for("coop", 4))
    seen.clear()
    for rows in (2, 5, 4):
        program.logits(program.prior_mean, inputs_for("coop", rows))
    assert len(seen) <= 1
    program.logits(program.prior_mean + 0.1, inputs_for("coop", 4))
    assert len(seen) <= 2


def test_what_is_remembered_is_the_value_at_these_weights() -> None:
    remembered = Remembered(lambda weights: weights.square())
    at = torch.tensor([1.0, 2.0])
    assert_near(remembered(at), at.square())
    at += 1  # in place: the same tensor with other values
    assert_near(remembered(at), at.square())
    assert_near(torch.func.grad(lambda weights: remembered(weights).sum())(at), 2 * at)
    assert_near(remembered(at + 1), (at + 1).square())


def test_programs_with_logits_of_their_own_are_left_alone() -> None:
    class Other(TwoTowerModel):
        def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
            return inputs

    context = Context(torch.zeros(3, 8), NAMES, 20.0)
    assert two_towers(Other(context, 1.0), lambda flat: {}) is None
    assert two_towers(find_model("linear_probe")(context, 1.0), lambda flat: {}) is None
