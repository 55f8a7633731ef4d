"""Model programs on a tiny task in float64, and what every one of them must satisfy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from small_problems import tiny_task
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.model import AdapterModel, Context, Support, find_model

TASK = tiny_task()
LENGTHS = torch.linspace(0.5, 3.0, len(TASK.support_labels), dtype=torch.float64)


def context_of_task(task: Task = TASK) -> Context:
    """The context of a task with its support rows, in float64."""
    return Context(
        unit(task.text_features),
        task.class_names,
        task.logit_scale,
        support=Support(unit(task.support_features), task.support_labels),
    )


def unit(rows: Tensor) -> Tensor:
    """Unit rows in float64, to rounding of float64."""
    return torch.nn.functional.normalize(rows.double(), dim=-1)


def program(name: str, variance: float = 0.1, task: Task = TASK, **context: object) -> AdapterModel:
    """The program `name` on the tiny task."""
    return find_model(name)(replace(context_of_task(task), **context), variance)


def queries(task: Task = TASK) -> Tensor:
    """Unit query rows in float64."""
    return unit(task.query_features)


def prior_means(model: AdapterModel) -> dict[str, Tensor]:
    """The prior mean of every site."""
    return {name: site.mean for name, site in model.prior().items()}


def draws(model: AdapterModel, *shape: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights (*shape, ...) near the prior mean, some deviations away."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: site.mean + 0.3 * torch.randn(*shape, *site.event_shape, generator=generator).to(site.mean)
        for name, site in model.prior().items()
    }


def zero_shot_logits(task: Task = TASK) -> Tensor:
    """s X Tᵀ of the queries."""
    return task.logit_scale * queries(task) @ unit(task.text_features).mT


def slope(model: AdapterModel, inputs: Tensor) -> Tensor:
    """∂ logits / ∂ weights at the prior mean, (N, C, P)."""
    means = prior_means(model)
    parts = torch.func.jacrev(lambda weights: model.logits(weights, inputs))(means)
    return torch.cat([part.flatten(2) for part in parts.values()], dim=-1)


def naive_discriminant(x: np.ndarray, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The authors' formula, with a pseudo-inverse."""
    means = np.stack([x[y == label].mean(0) for label in range(classes)])
    covariance = np.cov((x - means[y]).T)
    size = x.shape[1]
    precision = size * np.linalg.pinv((len(x) - 1) * covariance + np.trace(covariance) * np.eye(size))
    return means @ precision, -0.5 * np.einsum("cd,de,ce->c", means, precision, means)
