from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pyro.distributions import Normal
from small_problems import assert_near, tiny_task
from torch import Tensor
from torch.nn.functional import cross_entropy, dropout, normalize

from bayes_clip.errors import UserError
from bayes_clip.fitting import Fit, fit
from bayes_clip.inference import sgd
from bayes_clip.model import AdapterModel, Context, find_model
from bayes_clip.recipe import Recipe
from bayes_clip.settings import FitSettings

TASK = tiny_task(classes=3, features=6, shots=4)
ROWS = len(TASK.support_labels)
SETTINGS = FitSettings(engine="sgd", dtype="float64")
BATCHES = Recipe(
    source="a test", optimizer="sgd", learning_rate=0.1, epochs=6, batch_size=5, cosine_by="step"
)
EXACT = 1e-12


class Probe(AdapterModel):
    """A plain linear head; `recipe` is set by each test."""

    def prior(self) -> dict[str, Normal]:
        return {"w": Normal(self.text_features, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return self.logit_scale * inputs @ weights["w"].mT


def with_recipe(recipe: Recipe, base: type[AdapterModel] = Probe, **members: Any) -> type[AdapterModel]:
    return type("Trained", (base,), {"recipe": recipe, **members})


def trained(kind: type[AdapterModel], **settings: Any) -> Tensor:
    return fit(TASK, replace(SETTINGS, **settings), program=kind).posterior.weights.mean


def one_step(**changes: Any) -> Recipe:
    return replace(BATCHES, **{"epochs": None, "steps": 1, "batch_size": None, **changes})


def text() -> Tensor:
    return TASK.text_features.double()


def gradient(weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    """Of the mean cross-entropy of s X Wᵀ, by hand."""
    residual = (TASK.logit_scale * inputs @ weights.mT).softmax(-1) - torch.eye(3).double()[labels]
    return TASK.logit_scale * residual.mT @ inputs / len(labels)


def twin(recipe: Recipe, seed: int) -> list[Tensor]:
    """Every step of gradient descent with momentum and decay on shuffled batches, written out."""
    generator = torch.Generator().manual_seed(seed)
    weights, velocity, steps = text(), torch.zeros_like(text()), []
    batches = recipe.batches(ROWS)
    whole = recipe.length(ROWS, 4)
    while len(steps) < whole:
        order = torch.randperm(ROWS, generator=generator)
        for part in order.split(recipe.batch_size)[:batches]:
            slope = gradient(weights, TASK.support_features[part].double(), TASK.support_labels[part])
            velocity = recipe.momentum * velocity + slope + recipe.weight_decay * weights
            weights = weights - recipe.rate(len(steps), batches, whole) * velocity
            steps.append(weights)
    return steps


def loss_of(weights: Tensor) -> float:
    inputs = TASK.support_features.double()
    return float(cross_entropy(TASK.logit_scale * inputs @ weights.mT, TASK.support_labels))


def test_one_step_of_sgd_by_hand() -> None:
    """Weight decay pulls towards zero, not towards the prior mean."""
    slope = gradient(text(), TASK.support_features.double(), TASK.support_labels)
    wanted = text() - 0.1 * (slope + 0.05 * text())
    assert_near(trained(with_recipe(one_step(weight_decay=0.05))), wanted, EXACT)


def test_one_step_of_adamw_by_hand() -> None:
    slope = gradient(text(), TASK.support_features.double(), TASK.support_labels)
    wanted = text() * (1 - 0.1 * 0.05) - 0.1 * slope / (slope.abs() + 1e-4)
    recipe = one_step(optimizer="adamw", weight_decay=0.05, epsilon=1e-4)
    assert_near(trained(with_recipe(recipe)), wanted, EXACT)


def test_one_step_of_adam_has_its_decay_in_the_gradient() -> None:
    slope = gradient(text(), TASK.support_features.double(), TASK.support_labels) + 0.05 * text()
    recipe = one_step(optimizer="adam", weight_decay=0.05, epsilon=1e-4)
    assert_near(trained(with_recipe(recipe)), text() - 0.1 * slope / (slope.abs() + 1e-4), EXACT)


@pytest.mark.parametrize("drop_last", [False, True])
def test_whole_training_is_the_loop_written_out(drop_last: bool) -> None:
    recipe = replace(BATCHES, momentum=0.9, weight_decay=1e-3, drop_last=drop_last)
    steps = twin(recipe, seed=3)
    assert len(steps) == (12 if drop_last else 18)
    assert_near(trained(with_recipe(recipe), seed=3), steps[-1], EXACT)


def test_the_last_step_is_the_result_and_not_the_best() -> None:
    recipe = replace(BATCHES, schedule="constant", learning_rate=0.9, momentum=0.9)
    steps = twin(recipe, seed=0)
    losses = [loss_of(weights) for weights in steps]
    assert min(losses) < 0.9 * losses[-1], "the best step must be another one in this test"
    assert_near(trained(with_recipe(recipe)), steps[-1], 1e-10)


def test_the_prior_variance_changes_nothing_and_a_remark_says_so() -> None:
    kind = with_recipe(BATCHES)
    assert torch.equal(trained(kind, prior_variance=1e-6), trained(kind, prior_variance=10.0))
    (remark,) = replace(SETTINGS, prior_variance=1.0).unused
    assert "--prior-variance does not change it" in remark
    (remark,) = replace(SETTINGS, batch_size=7).unused
    assert "--batch-size is not used" in remark


def test_seeds_order_the_rows_and_draw_the_start() -> None:
    ordered = with_recipe(BATCHES)
    assert not torch.equal(trained(ordered, seed=0), trained(ordered, seed=1))

    def start(self: AdapterModel, generator: torch.Generator) -> dict[str, Tensor]:
        return {"w": torch.randn(3, 6, generator=generator)}

    drawn = with_recipe(one_step(learning_rate=1e-6, final_rate=0.0, warm_up_rate=0.0), start=start)
    first = torch.randn(3, 6, generator=torch.Generator().manual_seed(5)).double()
    assert_near(trained(drawn, seed=5), first, 1e-4)


def test_what_a_loss_draws_repeats_and_leaves_the_callers_numbers_alone() -> None:
    def loss(self: AdapterModel, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.logits(weights, dropout(inputs, 0.5)), labels)

    kind = with_recipe(BATCHES, loss=loss)
    first = trained(kind)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(trained(kind), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(trained(with_recipe(BATCHES)), first), "dropout must matter in this test"


def test_the_dtype_is_that_of_the_problem() -> None:
    kind = with_recipe(BATCHES)
    single, double = trained(kind, dtype="float32"), trained(kind)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert_near(single.double(), double, 1e-4)


def test_each_epoch_sees_its_own_view() -> None:
    kind = with_recipe(replace(BATCHES, epochs=3, batch_size=None))
    context = Context(text(), TASK.class_names, TASK.logit_scale)
    model = kind(context, 1.0)
    program = fit(TASK, SETTINGS, program=kind).posterior.logits.program
    seen = []

    def views(epoch: int) -> Tensor:
        seen.append(epoch)
        return TASK.support_features.double() * (epoch + 1)

    sgd.trained(model, program, views, TASK.support_labels, 0)
    assert seen == [0, 1, 2]


def test_a_start_without_every_site_is_refused() -> None:
    def start(self: AdapterModel, generator: torch.Generator) -> dict[str, Tensor]:
        return {"v": torch.zeros(3, 6)}

    with pytest.raises(UserError, match="Trained: its start gives v and its sites are w; give every site"):
        trained(with_recipe(BATCHES, start=start))


def test_a_training_that_diverges_is_refused() -> None:
    def loss(self: AdapterModel, weights: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> Tensor:
        return weights["w"].square().sum() * float("inf")

    with pytest.raises(UserError, match=r"Trained: its loss is inf at step 1 of 18; lower the learning rate"):
        trained(with_recipe(BATCHES, loss=loss))


def test_a_program_without_a_recipe_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"Probe has no recipe .* use map") as refused:
        fit(TASK, SETTINGS, program=Probe)
    assert "\n" not in str(refused.value)


def probe_fit(**changes: Any) -> Fit:
    task = replace(TASK, **changes)
    return fit(task, replace(SETTINGS, model="linear_probe"))


def test_the_linear_probe_ends_at_unit_class_weights_that_predict_as_it_was_trained() -> None:
    weights = probe_fit().posterior.weights.mean
    assert_near(weights.norm(dim=-1), torch.ones(3).double(), EXACT)
    context = Context(text(), TASK.class_names, TASK.logit_scale)
    model = find_model("linear_probe")(context, 1.0)
    inputs, labels = TASK.support_features.double(), TASK.support_labels
    as_trained = model.loss({"class_weights": 3.0 * weights}, inputs, labels)
    assert float(as_trained) == pytest.approx(loss_of(weights), rel=1e-12)
    assert loss_of(weights) < loss_of(text())


def test_the_linear_probe_starts_ten_times_the_texts_or_anywhere_without_them() -> None:
    generator = torch.Generator().manual_seed(0)
    context = Context(text(), TASK.class_names, TASK.logit_scale)
    kind = find_model("linear_probe")
    assert_near(kind(context, 1.0).start(generator)["class_weights"], 10 * text(), EXACT)
    textless = kind(replace(context, text_features=torch.zeros(3, 6), has_text=False), 1.0)
    drawn = textless.start(generator)["class_weights"]
    assert_near(drawn.norm(dim=-1), torch.full((3,), 10.0), 1e-5)
    assert not torch.equal(normalize(drawn), normalize(textless.start(generator)["class_weights"]))


def test_a_fit_tells_how_it_deviates_from_what_was_published() -> None:
    (note,) = probe_fit().notes
    assert note.startswith("linear_probe is trained as published but for: class weights start 10 long")
    assert "one view of each picture" in note
    assert fit(TASK, SETTINGS, program=with_recipe(BATCHES)).notes == ()
