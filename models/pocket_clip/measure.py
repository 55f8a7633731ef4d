"""Measure pocket_clip on real digits and rendered pictures: `python -m models.pocket_clip.measure`.

Writes measurements.json and the tables between the markers of CARD.md. Real digits are only measured on; no
choice of training or prompts is made here.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.data.digit_images import DIGIT_CLASS_NAMES, VARIANTS, digit_images
from bayes_clip.data.rendered_shapes import (
    COLOURS,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    render_shapes,
    render_shapes_task,
)

from .adaptation import measure_adaptation
from .card import write_card
from .render.dataset import TRAINING_COMBINATIONS
from .render.glyphs import ALPHABET, render_glyph

FOLDER = Path(__file__).resolve().parent
SHOTS, SEEDS = (1, 4, 16), (0, 1, 2, 3, 4)
FRESH_SEED = 10_000  # of rendered pictures that training never drew
NUMERALS = tuple(str(digit) for digit in range(10))
LONG_TEMPLATE = (
    "a blurry black and white picture taken from a collection, written by hand with thick white strokes, "
    "filling the frame, it is a {}."
)


def encode(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """Unit features (N, D) of pictures (N, h, w, 3) uint8."""
    features = backbone.encode_images([Image.fromarray(image) for image in images], batch_size=256)
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def zero_shot(
    backbone: Backbone, features: np.ndarray, labels: np.ndarray, names: Sequence[str],
    templates: Sequence[str] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Accuracy and mean confidence of the zero-shot classifier."""
    logits = backbone.logit_scale * features @ backbone.text_features(names, templates).numpy().T
    probabilities = torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    return {"accuracy": accuracy, "mean_confidence": float(probabilities.max(axis=1).mean())}


def draw_support(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Rows of a support set: per class in label order, the first of a permutation; the rest is the query."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in classes])


def linear_head_accuracy(rows: np.ndarray, labels: np.ndarray, shots: int, seed: int) -> float:
    """Query accuracy of logistic regression (C = 1) on unit rows times the root of their dimension."""
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True) * np.sqrt(rows.shape[1])
    support = draw_support(labels, shots, seed)
    query = np.setdiff1d(np.arange(len(labels)), support)
    head = LogisticRegression(C=1.0, max_iter=2000).fit(scaled[support], labels[support])
    return float(head.score(scaled[query], labels[query]))


def few_shot(rows: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over SEEDS of the linear head's accuracy, for each number of shots."""
    result = {}
    for shots in SHOTS:
        scores = [linear_head_accuracy(rows, labels, shots, seed) for seed in SEEDS]
        result[str(shots)] = {
            "mean": float(np.mean(scores)),
            "standard_deviation": float(np.std(scores, ddof=1)),
        }
    return result


def measure_digits(backbone: Backbone) -> dict[str, Any]:
    """Real digits: zero-shot as they are and shifted, and linear heads against raw pixels."""
    upright, labels = digit_images()
    pictures = {str(variant): digit_images(variant)[0] for variant in VARIANTS}
    pictures["inverted"] = 255 - upright
    pictures["half_contrast"] = (upright // 2 + 64).astype(np.uint8)
    features = {name: encode(backbone, images) for name, images in pictures.items()}
    zero = {name: zero_shot(backbone, rows, labels, DIGIT_CLASS_NAMES) for name, rows in features.items()}
    prompts = {
        "one template": zero_shot(
            backbone, features["upright"], labels, DIGIT_CLASS_NAMES, ["a photo of a {}."]
        ),
        "numerals": zero_shot(backbone, features["upright"], labels, NUMERALS),
        "28-token template": zero_shot(
            backbone, features["upright"], labels, DIGIT_CLASS_NAMES, [LONG_TEMPLATE]
        ),
    }
    heads = {
        name: {
            "features": few_shot(features[name], labels),
            "pixels": few_shot(block_levels(pictures[name]), labels),
        }
        for name in VARIANTS
    }
    supports = [draw_support(labels, 4, seed) for seed in SEEDS]
    pixels = block_levels(pictures["upright"])
    adapted = measure_adaptation(backbone, features["upright"], pixels, labels, supports)
    return {"zero_shot": zero, "prompts": prompts, "linear_head": heads, "adapted_4_shot": adapted}


def block_levels(images: np.ndarray) -> np.ndarray:
    """The 8 x 8 grey levels (N, 64) that the pictures were enlarged from, up to rounding."""
    small = images[..., 0].reshape(len(images), 8, 4, 8, 4).mean(axis=(2, 4))
    return small.reshape(len(images), 64).astype(np.float64)


def measure_rendered(backbone: Backbone) -> dict[str, Any]:
    """Freshly rendered pictures: digits, letters, shapes in seen and never seen colours."""
    rng = np.random.default_rng(FRESH_SEED)
    digits = rng.integers(10, size=2000)
    digit_features = encode(backbone, np.stack([render_glyph(str(d), rng).image for d in digits]))
    letters = rng.integers(26, size=2000)
    letter_features = encode(backbone, np.stack([render_glyph(ALPHABET[i], rng).image for i in letters]))
    task = render_shapes_task()
    every = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    names = [f"{colour} {shape}" for shape, colour in every]
    result = {
        "digits, words": zero_shot(backbone, digit_features, digits, DIGIT_CLASS_NAMES),
        "digits, numerals": zero_shot(backbone, digit_features, digits, NUMERALS),
        "capital letters": zero_shot(
            backbone, letter_features, letters, [f"capital letter {c}" for c in ALPHABET]
        ),
        "task shapes (24 unseen combinations)": zero_shot(
            backbone, encode(backbone, task.query_images), task.query_labels, task.class_names
        ),
    }
    for kind, combinations in (("unseen", HELD_OUT_COMBINATIONS), ("seen", TRAINING_COMBINATIONS)):
        images, chosen = render_shapes(combinations, 20, FRESH_SEED)
        labels = np.array([every.index(combination) for combination in combinations])[chosen]
        result[f"{kind} combinations among all 144"] = zero_shot(
            backbone, encode(backbone, images), labels, names
        )
    return result


def measure_words(backbone: Backbone) -> dict[str, Any]:
    """How words behave: size of the vocabulary, and the cosine of two words never seen."""
    cat, dog = backbone.model.encode_text(
        backbone.tokenize(["a photo of a cat.", "a photo of a dog."])
    ).detach()
    cosine = torch.nn.functional.cosine_similarity(cat, dog, dim=0)
    return {"words": len(backbone.vocabulary or ()), "cosine_of_cat_and_dog": float(cosine)}


@torch.inference_mode()
def measure_speed(backbone: Backbone) -> dict[str, Any]:
    """Pictures a second of the image tower alone, on one thread, and the processor's name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batch = torch.randn(256, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    backbone.model.encode_image(batch)
    started = time.perf_counter()
    for _ in range(8):
        backbone.model.encode_image(batch)
    seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    return {"images_per_second": 8 * 256 / seconds, "processor": _processor(), "threads": 1}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main() -> None:
    """Measure everything and write it down."""
    backbone = load_backbone()
    measurements = {
        "backbone": backbone.fingerprint,
        "logit_scale": backbone.logit_scale,
        "digits": measure_digits(backbone),
        "rendered": measure_rendered(backbone),
        "words": measure_words(backbone),
        "speed": measure_speed(backbone),
        "torch": torch.__version__,
    }
    (FOLDER / "measurements.json").write_text(json.dumps(measurements, indent=2) + "\n")
    write_card(measurements, FOLDER / "CARD.md")


if __name__ == "__main__":
    main()
