"""What all programs on frozen features have in common."""

from __future__ import annotations

import pytest
import torch
from model_programs import TASK, draws, prior_means, program, queries, slope, unit, zero_shot_logits
from small_problems import assert_near, tiny_task

from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.inference.program import read_program
from bayes_clip.settings import FitSettings

BAYESIAN = ("task_residual", "clip_adapter_no_relu", "tip_adapter", "clap", "gda", "visual_projection")
HEADS = ("clap", "gda")
ZERO_SHOT = ("task_residual", "clip_adapter", "clip_adapter_no_relu", "clap", "visual_projection")
NEED_TEXT = ("clip_adapter", "clip_adapter_no_relu", "visual_projection")


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_the_prior_mean_is_zero_shot(name: str) -> None:
    model = program(name)
    assert_near(model.logits(prior_means(model), queries()), zero_shot_logits(), 1e-12)


@pytest.mark.parametrize("name", BAYESIAN)
def test_every_weight_has_a_slope_at_the_prior_mean(name: str) -> None:
    model = program(name)
    jacobian = slope(model, unit(TASK.support_features))
    moved = (jacobian - jacobian.mean(1, keepdim=True)).abs().amax((0, 1))
    assert (moved > 1e-6 * moved.max()).all()


@pytest.mark.parametrize("name", (*BAYESIAN, "clip_adapter"))
def test_logits_broadcast_over_draws_of_the_weights(name: str) -> None:
    model, inputs = program(name), queries()
    weights = draws(model, 4, 2)
    together = model.logits(weights, inputs)
    assert together.shape == (4, 2, *TASK.query_labels.shape, 3)
    alone = model.logits({site: value[3, 1] for site, value in weights.items()}, inputs)
    assert_near(together[3, 1], alone, 1e-12)


@pytest.mark.parametrize("name", (*BAYESIAN, "clip_adapter"))
def test_what_is_read_is_in_float64_and_a_head_where_it_is_linear(name: str) -> None:
    inputs = unit(TASK.support_features)
    read = read_program(program(name), inputs)
    assert read.is_head == (name in HEADS) and read.is_linear == (name in HEADS)
    assert read.prior_mean.dtype == torch.float64 and read.outputs == 3
    assert_near(
        read.values(read.prior_mean)[read.sites[0].name], next(iter(prior_means(program(name)).values()))
    )


@pytest.mark.parametrize("engine", ["map", "ekf", "laplace"])
@pytest.mark.parametrize("name", BAYESIAN)
def test_learning_does_better_than_the_prior_mean_on_what_was_learned(name: str, engine: str) -> None:
    task = tiny_task(shots=1)  # nothing to choose a prior variance by: one fit

    def loss(by: str) -> float:
        fitted = fit(task, FitSettings(model=name, engine=by, dtype="float64")).posterior
        chances = fitted.predict(task.support_rows).probabilities
        return -float(chances.gather(1, task.support_labels[:, None]).log().mean())

    assert loss(engine) < loss("zero_shot")


@pytest.mark.parametrize("name", (*(name for name in BAYESIAN if name != "gda"), "clip_adapter"))
def test_the_recipe_starts_in_every_site_and_lowers_its_own_loss(name: str) -> None:
    model = program(name)
    assert model.recipe is not None
    inputs, labels = unit(TASK.support_features), TASK.support_labels
    start = model.start(torch.Generator().manual_seed(0))
    assert {site: value.shape for site, value in start.items()} == {
        site: value.event_shape for site, value in model.prior().items()
    }
    loss, gradients = torch.func.grad_and_value(lambda weights: model.loss(weights, inputs, labels))(start)[
        ::-1
    ]
    length = 1e-4 / max(float(gradient.abs().max()) for gradient in gradients.values())
    nearer = {site: value - length * gradients[site] for site, value in start.items()}
    assert model.loss(nearer, inputs, labels) < loss


@pytest.mark.parametrize("name", NEED_TEXT)
def test_programs_that_move_images_alone_are_refused_without_text(name: str) -> None:
    with pytest.raises(UserError, match=r"compares images with class texts, and there are no text_features"):
        fit(tiny_task(text=False), FitSettings(model=name, engine="sgd"))


@pytest.mark.parametrize("name", ["task_residual", "tip_adapter", "clap", "gda"])
def test_others_do_without_text(name: str) -> None:
    task = tiny_task(text=False)
    right = fit(task, FitSettings(model=name, engine="map")).posterior.predict(task.query_rows).probabilities
    assert float((right.argmax(-1) == task.query_labels).double().mean()) > 0.6
