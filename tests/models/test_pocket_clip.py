from __future__ import annotations

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.naming import register_config
from bayes_clip.data.digit_images import DIGIT_CLASS_NAMES, VARIANTS, DigitVariant, digit_images
from bayes_clip.data.rendered_shapes import HELD_OUT_COMBINATIONS, render_shapes_task
from models.pocket_clip import measure
from models.pocket_clip.card import measured_tables
from models.pocket_clip.towers import CONFIG_FILE, FOLDER, WEIGHTS_FILE

Rows = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone()


@pytest.fixture(scope="module")
def digits(backbone: Backbone) -> tuple[Rows, np.ndarray]:
    """Unit features of the real digits in every variant, and their labels."""
    labels = digit_images()[1]
    return {variant: measure.encode(backbone, digit_images(variant)[0]) for variant in VARIANTS}, labels


def test_weights_are_small_half_precision_and_complete() -> None:
    assert WEIGHTS_FILE.stat().st_size <= 10_000_000
    with safe_open(WEIGHTS_FILE, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert all(value.dtype == torch.float16 for value in tensors.values() if value.is_floating_point())
    assert all(bool(value.isfinite().all()) for value in tensors.values())
    assert tensors["token_embedding.weight"].shape == (49_408, 48)
    assert "attn_mask" not in tensors


def test_open_clip_builds_it_strictly_from_config_and_file() -> None:
    name = register_config(CONFIG_FILE)
    assert name == "pocket_clip"
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=str(WEIGHTS_FILE))
    with safe_open(WEIGHTS_FILE, framework="pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model.context_length == 32 and model.visual.image_size in (32, (32, 32))
    settings = json.loads((FOLDER / "preprocess.json").read_text())
    normalise = preprocess.transforms[-1]
    assert tuple(settings["mean"]) == tuple(normalise.mean) and tuple(settings["std"]) == tuple(normalise.std)


def test_zero_shot_on_real_digits(backbone: Backbone, digits: tuple[Rows, np.ndarray]) -> None:
    features, labels = digits
    accuracy = {
        variant: measure.zero_shot(backbone, rows, labels, DIGIT_CLASS_NAMES)["accuracy"]
        for variant, rows in features.items()
    }
    assert accuracy["upright"] >= 0.85
    assert accuracy["rotated"] < 0.35


def mean_accuracy(rows: np.ndarray, labels: np.ndarray, shots: int) -> float:
    return float(np.mean([measure.linear_head_accuracy(rows, labels, shots, seed) for seed in range(5)]))


def test_four_shots_beat_zero_shot_and_raw_pixels(
    backbone: Backbone, digits: tuple[Rows, np.ndarray]
) -> None:
    features, labels = digits
    zero = measure.zero_shot(backbone, features["upright"], labels, DIGIT_CLASS_NAMES)["accuracy"]
    head = mean_accuracy(features["upright"], labels, 4)
    assert head > zero
    assert head > mean_accuracy(measure.block_levels(digit_images()[0]), labels, 4) + 0.03


@pytest.mark.parametrize("variant", ["rotated", "mirrored"])
def test_four_shots_repair_what_zero_shot_cannot(
    backbone: Backbone, digits: tuple[Rows, np.ndarray], variant: DigitVariant
) -> None:
    features, labels = digits
    zero = measure.zero_shot(backbone, features[variant], labels, DIGIT_CLASS_NAMES)["accuracy"]
    head = mean_accuracy(features[variant], labels, 4)
    assert head > 0.55 and head > zero + 0.3


def test_never_seen_combinations_are_recognised(backbone: Backbone) -> None:
    task = render_shapes_task(query_each=8)
    rows = measure.encode(backbone, task.query_images)
    assert measure.zero_shot(backbone, rows, task.query_labels, task.class_names)["accuracy"] > 0.7
    assert len(task.class_names) == len(HELD_OUT_COMBINATIONS)


def test_vocabulary_tells_known_words_from_unknown(backbone: Backbone) -> None:
    words = json.loads((FOLDER / "vocabulary.json").read_text())
    assert words == sorted(set(words)) and len(words) >= 300
    templates = json.loads((FOLDER / "templates.json").read_text())
    prompts = [
        template.format(name) for template in templates for name in (*DIGIT_CLASS_NAMES, "red triangle")
    ]
    assert backbone.unknown_words(prompts) == []
    assert backbone.unknown_words(["a photo of a cat and a dog."]) == ["cat", "dog"]


def test_card_holds_the_measured_tables() -> None:
    measurements = json.loads((FOLDER / "measurements.json").read_text())
    assert measurements["backbone"] == load_backbone().fingerprint
    assert measured_tables(measurements) in (FOLDER / "CARD.md").read_text()
