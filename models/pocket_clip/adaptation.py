"""How much four labels a class add to pocket_clip on real digits, by bayes_clip's default fit."""

from __future__ import annotations

import numpy as np
import torch

import bayes_clip as bc
from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.digit_images import DIGIT_CLASS_NAMES


def accuracy_of_fit(
    rows: np.ndarray, labels: np.ndarray, support: np.ndarray, backbone: Backbone | None
) -> tuple[float, np.ndarray]:
    """Accuracy of the default fit on everything not drawn, and those rows' numbers.

    With a `backbone` the rows are its features and the prior is centred on zero-shot; without, they are
    pixels and the prior is centred on zero: the same head, engine and choice of prior variance.
    """
    query = np.setdiff1d(np.arange(len(labels)), support)
    task = bc.make_task(
        "digits",
        rows[support],
        labels[support],
        rows[query],
        labels[query],
        class_names=DIGIT_CLASS_NAMES,
        text_features=None if backbone is None else backbone.text_features(DIGIT_CLASS_NAMES),
        logit_scale=None if backbone is None else backbone.logit_scale,
    )
    prediction = bc.fit(task).posterior.predict(task.query_features)
    return float((prediction.probabilities.argmax(-1) == task.query_labels).double().mean()), query


def measure_adaptation(
    backbone: Backbone,
    features: np.ndarray,
    pixels: np.ndarray,
    labels: np.ndarray,
    supports: list[np.ndarray],
) -> dict[str, dict[str, float]]:
    """Zero-shot, fit on features and fit on pixels over the given draws; gains are paired by draw."""
    text = backbone.text_features(DIGIT_CLASS_NAMES).numpy()
    correct = torch.from_numpy(features @ text.T).argmax(-1).numpy() == labels
    scores: dict[str, list[float]] = {"zero_shot": [], "features": [], "pixels": []}
    for support in supports:
        adapted, query = accuracy_of_fit(features, labels, support, backbone)
        scores["features"].append(adapted)
        scores["pixels"].append(accuracy_of_fit(pixels, labels, support, None)[0])
        scores["zero_shot"].append(float(correct[query].mean()))
    ours = np.array(scores["features"])
    gains = {f"gain_over_{name}": ours - np.array(scores[name]) for name in ("zero_shot", "pixels")}
    return {
        name: {
            "mean": float(np.mean(values)),
            "standard_deviation": float(np.std(values, ddof=1)),
            "least": float(np.min(values)),
        }
        for name, values in {**scores, **gains}.items()
    }
