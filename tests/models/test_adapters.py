"""TaskRes, CLIP-Adapter in both forms, GDA and ProLIP against short formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_programs import (
    TASK,
    draws,
    naive_discriminant,
    prior_means,
    program,
    queries,
    slope,
    unit,
    zero_shot_logits,
)
from small_problems import assert_near, tiny_task
from torch.nn.functional import cosine_similarity

from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.backbone.projection import pooled_features, projection_of
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.model import Projection
from bayes_clip.settings import FitSettings

TEXT = unit(TASK.text_features)
SCALE = TASK.logit_scale


def test_task_residual_is_a_cosine_classifier_of_the_sums() -> None:
    model = program("task_residual")
    weights = {"residuals": 20 * draws(model)["residuals"]}
    sums = 10 * TEXT + 0.5 * weights["residuals"]
    wanted = SCALE * cosine_similarity(queries()[:, None], sums, dim=-1)
    assert_near(model.logits(weights, queries()), wanted, 1e-12)


def naive_adapter(x: np.ndarray, down: np.ndarray, up: np.ndarray, outer: bool) -> np.ndarray:
    """Logits of one image feature of any length."""
    adapted = up @ np.maximum(down @ x, 0)
    mixed = 0.2 * (np.maximum(adapted, 0) if outer else adapted) + 0.8 * x
    return SCALE * TEXT.numpy() @ mixed / np.linalg.norm(mixed)


def test_clip_adapter_is_two_layers_mixed_in_by_a_fifth() -> None:
    model = program("clip_adapter")
    weights = model.start(torch.Generator().manual_seed(3))
    down, up = weights["down"].numpy(), weights["up"].numpy()
    rows = 3 * queries()
    wanted = torch.from_numpy(np.stack([naive_adapter(row, down, up, True) for row in rows.numpy()]))
    assert_near(model.logits(weights, rows), wanted, 1e-12)
    assert down.shape == (1, 6) and up.shape == (6, 1)


@pytest.mark.parametrize("name", ["clip_adapter", "clip_adapter_no_relu"])
def test_the_length_of_a_feature_cancels_in_logits_and_gradients(name: str) -> None:
    """So files of unit features are as good as those of the encoder's own length."""
    model, lengths = program(name), torch.linspace(0.5, 12, len(TASK.query_labels)).double()[:, None]
    weights = model.start(torch.Generator().manual_seed(1)) if name == "clip_adapter" else draws(model)
    unit_rows, long = queries(), lengths * queries()
    assert_near(model.logits(weights, long), model.logits(weights, unit_rows), 1e-12)
    truth = TASK.query_labels
    gradients = [
        torch.func.grad(lambda given, rows=rows: model.loss(given, rows, truth))(weights)
        for rows in (long, unit_rows)
    ]
    for site in weights:
        assert_near(gradients[0][site], gradients[1][site], 1e-12)


def test_clip_adapter_has_a_dead_point_where_the_bayesian_variant_has_none() -> None:
    assert not slope(program("clip_adapter"), queries()).any()
    assert slope(program("clip_adapter_no_relu"), queries()).any()
    with pytest.raises(UserError, match=r"runs under zero_shot, sgd, not under ekf"):
        fit(TASK, FitSettings(model="clip_adapter", engine="ekf"))
    fit(TASK, FitSettings(model="clip_adapter", engine="zero_shot"))


def test_the_bayesian_adapter_is_the_published_one_without_its_outer_relu() -> None:
    model = program("clip_adapter_no_relu")
    weights = draws(model)
    up = model.basis @ weights["up"]  # type: ignore[attr-defined]
    first = model.first.numpy()  # type: ignore[attr-defined]
    wanted = [naive_adapter(row, first, up.numpy(), False) for row in queries().numpy()]
    assert_near(model.logits(weights, queries()), torch.from_numpy(np.stack(wanted)), 1e-12)
    again = program("clip_adapter_no_relu").first  # type: ignore[attr-defined]
    assert np.array_equal(first, again.numpy()), "the first layer does not depend on when it is made"


def test_gda_is_zero_shot_plus_the_weighted_discriminant_chosen_without_its_fold() -> None:
    model = program("gda")
    features, labels = unit(TASK.support_features), TASK.support_labels
    known = SCALE * features @ TEXT.mT
    grid = [10 ** (power / 2) for power in range(-8, 5)]
    losses = []
    for weight in grid:
        loss = 0.0
        for fold in range(4):  # tiny_task lists one shot of every class after another
            out = torch.arange(3 * fold, 3 * fold + 3)
            kept = torch.ones(12, dtype=torch.bool)
            kept[out] = False
            slopes, bias = naive_discriminant(features[kept].numpy(), labels[kept].numpy(), 3)
            scores = features[out] @ torch.from_numpy(slopes).mT + torch.from_numpy(bias)
            logits = known[out] + weight * scores
            loss -= float(logits.log_softmax(-1).gather(1, labels[out, None]).sum())
        losses.append(loss)
    best = grid[int(np.argmin(losses))]
    slopes, bias = naive_discriminant(features.numpy(), labels.numpy(), 3)
    scores = queries() @ torch.from_numpy(slopes).mT + torch.from_numpy(bias)
    assert_near(model.logits(prior_means(model), queries()), zero_shot_logits() + best * scores)


def test_prolip_moves_the_projection_within_the_span_of_the_texts() -> None:
    generator = torch.Generator().manual_seed(5)
    pretrained = torch.randn(9, 6, generator=generator).double()
    bias = torch.randn(6, generator=generator).double()
    inputs = torch.randn(7, 9, generator=generator).double()
    model = program("visual_projection", projection=Projection(pretrained, bias), width=9)
    at_rest = inputs @ pretrained + bias
    wanted = SCALE * cosine_similarity(at_rest[:, None], TEXT, dim=-1)
    assert_near(model.logits(prior_means(model), inputs), wanted, 1e-12)
    weights = draws(model)
    change = weights["change"] @ model.basis.mT  # type: ignore[attr-defined]
    moved = inputs @ (pretrained + change) + bias
    assert_near(model.logits(weights, inputs), SCALE * cosine_similarity(moved[:, None], TEXT, dim=-1), 1e-12)
    assert_near(change.square().sum(), weights["change"].square().sum(), 1e-12)
    plain = torch.nn.functional.cross_entropy(model.logits(weights, inputs), torch.arange(7) % 3)
    # seven rows of three classes: the largest has three shots
    assert_near(model.loss(weights, inputs, torch.arange(7) % 3), plain + change.square().sum() / 3, 1e-12)


def test_prolip_starts_from_zero_shot_on_pocket_clip() -> None:
    backbone = load_backbone()
    pictures = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    text = unit(backbone.text_features(["one", "two", "three"]))
    projection = projection_of(backbone)
    model = program(
        "visual_projection",
        task=replace(tiny_task(), logit_scale=backbone.logit_scale),
        text_features=text,
        projection=projection,
        width=len(projection.weight),
    )
    logits = model.logits(prior_means(model), pooled_features(backbone, pictures).double())
    features = unit(backbone.encode_images(pictures))
    assert_near(logits, backbone.logit_scale * features @ text.mT, 1e-5)
