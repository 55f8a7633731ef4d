from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pyro.distributions import Normal
from small_problems import tiny_task
from torch import Tensor

from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.data.builtin import builtin_task
from bayes_clip.data.rows import Pictures, Rows
from bayes_clip.data.task import Task, few_shot
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.inputs import inputs_of, task_context
from bayes_clip.model import AdapterModel
from bayes_clip.settings import FitSettings


class Raw(AdapterModel):
    takes = "raw"

    def prior(self) -> dict[str, Normal]:
        return {"class_weights": Normal(self.text_features, self.prior_variance**0.5).to_event(2)}

    def logits(self, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return inputs @ weights["class_weights"].mT


class OfPixels(Raw):
    takes = "pixels"


class Remembering(Raw):
    """Counts its support rows in the prior mean, so that a leak into a fold would be seen."""

    takes = "unit"
    uses_support = True
    seen: list[int]

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        assert self.context.support is not None
        type(self).seen.append(len(self.context.support.labels))


@pytest.fixture(scope="module")
def digits() -> Task:
    return few_shot(builtin_task("digits", load_backbone()), 2, 0)


def test_raw_features_are_unit_ones_times_their_norms(digits: Task) -> None:
    context = task_context(Raw, digits)
    raw = inputs_of(Raw, context, digits.support_rows)
    assert digits.support_norms is not None
    assert torch.allclose(raw.norm(dim=-1), digits.support_norms)
    assert torch.equal(inputs_of(AdapterModel, context, digits.support_rows), digits.support_features)
    assert torch.equal(
        inputs_of(Raw, context, Rows(digits.support_features)), digits.support_features
    )  # lengths unknown


def test_pixels_are_those_the_features_were_made_of(digits: Task) -> None:
    context = task_context(OfPixels, digits)
    pixels = inputs_of(OfPixels, context, digits.support_rows)
    assert pixels.shape == (20, 3 * 32 * 32) and context.width == 3 * 32 * 32
    assert digits.encoder is not None and digits.support_norms is not None
    features = digits.encoder.encode_pixels(pixels.reshape(-1, 3, 32, 32))
    expected = digits.support_features * digits.support_norms[:, None]
    assert torch.allclose(features, expected, atol=1e-5)


def test_pictures_follow_the_rows_they_belong_to(digits: Task) -> None:
    kept = torch.tensor([3, 1])
    assert digits.support_pictures is not None
    part = digits.with_support(kept)
    assert part.support_pictures is not None
    numbers = digits.support_pictures.numbers
    assert part.support_pictures.numbers == (numbers[3], numbers[1])
    mask = torch.zeros(20, dtype=torch.bool)
    mask[[1, 3]] = True
    masked = Pictures(lambda number: torch.zeros(3, 1, 1), numbers).pick(mask)
    assert masked.numbers == (numbers[1], numbers[3])


def test_rows_without_pictures_are_refused_where_pictures_are_taken(digits: Task) -> None:
    context = task_context(OfPixels, digits)
    with pytest.raises(UserError, match="these rows are features alone"):
        inputs_of(OfPixels, context, Rows(digits.query_features))
    with pytest.raises(UserError, match="give a folder of pictures"):
        task_context(OfPixels, tiny_task())


def test_a_posterior_predicts_rows_as_its_program_takes_them(digits: Task) -> None:
    posterior = fit(digits, FitSettings(engine="map", prior_variance=0.01), program=Raw).posterior
    few = Rows(digits.query_features[:5], None if digits.query_norms is None else digits.query_norms[:5])
    assert few.norms is not None
    bare = few.features * few.norms[:, None]
    assert torch.equal(posterior.predict(few).probabilities, posterior.predict(bare).probabilities)


@pytest.mark.parametrize("engine", ["map", "ekf"])
def test_in_folds_a_program_sees_the_rows_of_the_fold_alone(engine: str) -> None:
    task, Remembering.seen = tiny_task(shots=4), []
    fit(replace(task, name="folds"), FitSettings(engine=engine), program=Remembering)
    count = len(task.support_labels)
    assert set(Remembering.seen) == {3 * count // 4, count}  # four folds, one shot of every class each
