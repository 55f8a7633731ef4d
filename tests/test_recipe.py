from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from bayes_clip.errors import UserError
from bayes_clip.model import find_model, list_models
from bayes_clip.recipe import MOST_SHOTS, Recipe

PLAIN = Recipe(source="a paper", optimizer="sgd", learning_rate=0.1, epochs=10, batch_size=4)
COOP = {"optimizer": "sgd", "learning_rate": 0.002, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 32}
DASSL = {"schedule": "cosine", "cosine_by": "epoch", "warm_up_epochs": 1, "warm_up_rate": 1e-5}
# The published numbers, and the steps of 1, 2, 4, 8 and 16 shots of 10 classes.
ZS_LP = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 256}
COOP_STEPS = [50, 100, 100, 400, 1000]
PUBLISHED: dict[str, tuple[dict[str, Any], list[int]]] = {
    "linear_probe": (ZS_LP | DASSL, 5 * [300]),
    "clap": (ZS_LP | DASSL, 5 * [300]),
    "coop": (COOP | DASSL, COOP_STEPS),
    "coop_class": (COOP | DASSL, COOP_STEPS),
    "contcoop": (COOP | DASSL, COOP_STEPS),
    "clip_adapter": (COOP | DASSL, COOP_STEPS),
    "task_residual": (
        DASSL | {"optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 5e-4, "batch_size": 256},
        [100, 100, 100, 200, 200],
    ),
    "tip_adapter": (  # torch's own weight decay of AdamW, which the authors leave as it is
        {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 1e-2, "epsilon": 1e-4}
        | {"batch_size": 256, "schedule": "cosine", "cosine_by": "step", "warm_up_epochs": 0},
        5 * [20],
    ),
    "visual_projection": ({"optimizer": "adam", "batch_size": None, "weight_decay": 0.0}, 5 * [300]),
    "lora": (
        {"optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 1e-2, "batch_size": 32}
        | {"schedule": "cosine", "cosine_by": "step", "final_rate": 1e-6, "warm_up_epochs": 0},
        [500, 1000, 2000, 4000, 8000],
    ),
}


def torch_rates(steps: int, final_rate: float = 0.0) -> list[float]:
    """What torch's own cosine scheduler gives for rate 0.1 over so many moves."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = CosineAnnealingLR(optimizer, steps, eta_min=final_rate)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_are_those_of_the_reference(name: str) -> None:
    recipe = find_model(name).recipe
    wanted, steps = PUBLISHED[name]
    assert recipe is not None
    assert {field: getattr(recipe, field) for field in wanted} == wanted
    assert [recipe.length(10 * shots, shots) for shots in (1, 2, 4, 8, 16)] == steps


def test_every_recipe_says_where_it_is_from() -> None:
    recipes = [find_model(name).recipe for name in list_models()]
    assert all(len(recipe.source) > 10 for recipe in recipes if recipe is not None)


def test_cosine_by_step_is_that_of_torch() -> None:
    recipe = replace(PLAIN, cosine_by="step", final_rate=1e-3)
    mine = [recipe.rate(step, 3, 30) for step in range(30)]
    assert mine == pytest.approx(torch_rates(30, 1e-3), rel=1e-12)


def test_cosine_by_epoch_holds_still_within_an_epoch() -> None:
    mine = [PLAIN.rate(step, 3, 30) for step in range(30)]
    assert mine == pytest.approx([rate for rate in torch_rates(10) for _ in range(3)], rel=1e-12)


def test_after_warm_up_the_cosine_begins_at_the_full_rate() -> None:
    """CoOp's trainer: epoch 0 at 1e-5, then the cosine over all epochs from its start, cut off at the end."""
    recipe = replace(PLAIN, warm_up_epochs=1)
    mine = [recipe.rate(step, 2, 20) for step in range(20)]
    assert mine[:2] == [1e-5, 1e-5]
    assert mine[2:] == pytest.approx([rate for rate in torch_rates(10)[:-1] for _ in range(2)], rel=1e-12)
    assert mine[2] == 0.1 and mine[-1] == pytest.approx(0.05 * (1 + math.cos(0.8 * math.pi)))


def test_a_constant_schedule_is_constant_after_warm_up() -> None:
    recipe = replace(PLAIN, schedule="constant", warm_up_epochs=2)
    assert [recipe.rate(step, 1, 5) for step in range(5)] == [1e-5, 1e-5, 0.1, 0.1, 0.1]


def test_length_by_shots_takes_the_entry_that_is_not_above() -> None:
    recipe = replace(PLAIN, epochs={2: 5, 4: 7, 16: 9}, batch_size=None)
    lengths = {shots: recipe.length(100, shots) for shots in (1, 2, 3, 4, 15, 16, 100)}
    assert lengths == {1: 5, 2: 5, 3: 5, 4: 7, 15: 7, 16: 9, 100: 9}


def test_lengths_in_steps_and_by_shot() -> None:
    assert replace(PLAIN, epochs=None, steps=70).length(1000, 3) == 70
    by_shot = replace(PLAIN, epochs=None, steps_per_shot=500)
    assert by_shot.length(1000, 3) == 1500
    assert by_shot.length(1000, MOST_SHOTS + 9) == 500 * MOST_SHOTS


@given(rows=st.integers(1, 200), size=st.integers(1, 64), drop_last=st.booleans())
def test_batches_cover_the_rows_or_leave_out_less_than_one(rows: int, size: int, drop_last: bool) -> None:
    batches = replace(PLAIN, batch_size=size, drop_last=drop_last).batches(rows)
    if drop_last and rows >= size:
        assert batches * size <= rows < (batches + 1) * size
    else:
        assert (batches - 1) * size < rows <= batches * size


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ({"weight_decay": 1e2}, "weight_decay 100.0 is out of range; published recipes keep to 0 to 0.1"),
        ({"weight_decay": -1e-4}, "weight_decay -0.0001"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"learning_rate": 20.0}, "learning_rate 20.0"),
        ({"learning_rate": math.nan}, "learning_rate nan"),
        ({"momentum": 1.0}, "momentum 1.0"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum 0.9 is of sgd"),
        ({"optimizer": "lion"}, "optimizer lion"),
        ({"schedule": "linear"}, "schedule linear"),
        ({"cosine_by": "hour"}, "cosine_by hour"),
        ({"epsilon": 0.0}, "epsilon 0.0"),
        ({"epochs": 0}, "epochs 0"),
        ({"epochs": {}}, "epochs {}"),
        ({"epochs": {1: 50, 2: 5000}}, "epochs {1: 50, 2: 5000}"),
        ({"epochs": None}, "needs its length in one way"),
        ({"steps": 10}, "needs its length in one way"),
        ({"epochs": None, "steps": 0}, "steps 0"),
        ({"epochs": None, "steps_per_shot": 10**6}, "steps_per_shot 1000000"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"warm_up_epochs": 10}, "warm_up_epochs 10"),
        ({"warm_up_rate": 0.2}, "warm_up_rate 0.2"),
        ({"final_rate": 0.2}, "final_rate 0.2"),
        ({"smallest_crop": 0.0}, "smallest_crop 0.0"),
    ],
)
def test_slips_are_refused_by_name(slip: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        replace(PLAIN, **slip)
    assert str(refused.value).startswith("recipe of a paper: " + said)
