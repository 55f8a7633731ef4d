"""A stream of labelled batches whose classes turn by 90 degrees: material for drifting_labels.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import bayes_clip as bc
from bayes_clip.data.digit_images import digit_images

TURN = 90.0  # degrees, from the first batch to the last


@dataclass(frozen=True)
class Stream:
    """A linear head's batches in order; logits are design Wᵀ."""

    design: Tensor  # (T, b, D)
    labels: Tensor  # (T, b)
    prior_mean: Tensor  # (C, D)
    logit_variance: float  # of a logit at unit prior variance
    has_text: bool


def angles(scenario: str, steps: int) -> np.ndarray:
    """Degrees (T,) by which the classes have turned at each batch."""
    along = np.linspace(0, 1, steps)
    return TURN * (along if scenario == "slow" else (along > 0.5).astype(float))


def make_stream(task: bc.Task, scenario: str, seed: int, steps: int, batch_size: int) -> Stream:
    """`steps` batches of rows of the task drawn without replacement, turned as the scenario says."""
    rows = np.concatenate([task.support_labels, task.query_labels])
    steps = min(steps, len(rows) // batch_size)
    order = np.random.default_rng(seed).permutation(len(rows))[: steps * batch_size]
    degrees = np.repeat(angles(scenario, steps), batch_size)
    if task.name == "digits":
        features, labels = turned_digits(order, degrees)
    else:
        features = turned_features(task, torch.as_tensor(order), torch.as_tensor(degrees))
        labels = torch.as_tensor(rows[order])
    scale = task.logit_scale
    text = task.text_features
    return Stream(
        (scale * features).reshape(steps, batch_size, -1),
        labels.reshape(steps, batch_size),
        torch.zeros(task.num_classes, task.num_features) if text is None else text,
        scale**2,
        text is not None,
    )


def turned_digits(order: np.ndarray, degrees: np.ndarray) -> tuple[Tensor, Tensor]:
    """Unit features (N, D) of digits turned counter-clockwise, and their labels (N,)."""
    images, labels = digit_images()
    pictures = (
        Image.fromarray(images[row]).rotate(angle, Image.Resampling.BICUBIC)
        for row, angle in zip(order, degrees, strict=True)
    )
    features = bc.load_backbone().encode_images(pictures, description="encoding digits", total=len(order))
    return torch.nn.functional.normalize(features, dim=-1), torch.from_numpy(labels[order])


def turned_features(task: bc.Task, order: Tensor, degrees: Tensor) -> Tensor:
    """Features (N, D), those of class c turned in the plane of its mean direction and that of class c + 1."""
    features = torch.cat([task.support_features, task.query_features])
    labels = torch.cat([task.support_labels, task.query_labels])
    means = torch.stack([features[labels == label].mean(0) for label in range(task.num_classes)])
    first = torch.nn.functional.normalize(means, dim=-1)
    second = first.roll(-1, dims=0)
    second = torch.nn.functional.normalize(second - (second * first).sum(-1, keepdim=True) * first, dim=-1)
    rows, u, w = features[order], first[labels[order]], second[labels[order]]
    along, across = (rows * u).sum(-1, keepdim=True), (rows * w).sum(-1, keepdim=True)
    cosine, sine = degrees.deg2rad().cos()[:, None].float(), degrees.deg2rad().sin()[:, None].float()
    return rows + (cosine - 1) * (along * u + across * w) + sine * (along * w - across * u)
