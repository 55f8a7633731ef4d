"""Small random problems in float64, and what is compared on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.data.task import Task, make_task

EXACT = 1e-9


@dataclass(frozen=True)
class SmallProblem:
    """Labels of N rows under logits X Wᵀ with W ~ N(mean, diag variance), float64."""

    design: Tensor  # (N, D)
    labels: Tensor  # (N,)
    mean: Tensor  # (C, D)
    variance: Tensor  # (C, D)

    @property
    def logits(self) -> Tensor:
        """Prior mean logits (N, C)."""
        return self.design @ self.mean.mT

    def rows(self, picked: Tensor) -> SmallProblem:
        """These rows alone."""
        return replace(self, design=self.design[picked], labels=self.labels[picked])


def small_problem(
    classes: int = 3,
    features: int = 5,
    rows: int = 12,
    *,
    seed: int = 0,
    variance: float = 0.5,
    isotropic: bool = False,
) -> SmallProblem:
    """Random rows of length about 2, labels that run through the classes, and a random prior.

    The prior does not depend on the number of rows.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(classes, features, generator=generator, dtype=torch.float64)
    spread = torch.rand(classes, features, generator=generator, dtype=torch.float64) + 0.5
    design = torch.randn(rows, features, generator=generator, dtype=torch.float64)
    design *= 2 / features**0.5
    own = torch.full_like(mean, variance) if isotropic else variance * spread
    return SmallProblem(design, torch.arange(rows) % classes, mean, own)


def tiny_task(
    classes: int = 3,
    features: int = 6,
    shots: int = 4,
    *,
    queries: int = 20,
    seed: int = 0,
    text: bool = True,
    ood: bool = False,
    name: str = "tiny",
    logit_scale: float = 20.0,
) -> Task:
    """Noisy unit vectors around one direction per class; the text features are rough guesses of these."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    centres = torch.nn.functional.normalize(random(classes, features), dim=-1)
    support_labels = torch.arange(classes).repeat(shots)
    query_labels = torch.arange(classes).repeat(queries)
    noise = 0.8 / features**0.5
    return make_task(
        name,
        centres[support_labels] + noise * random(len(support_labels), features),
        support_labels,
        centres[query_labels] + noise * random(len(query_labels), features),
        query_labels,
        text_features=centres + 2 * noise * random(classes, features) if text else None,
        ood_features=random(15, features) if ood else None,
        logit_scale=logit_scale,
    )


def problem_of(task: Task, variance: float) -> SmallProblem:
    """The linear probe on the support set of a task, in float64."""
    text = task.text_features.double()
    design = task.logit_scale * task.support_features.double()
    return SmallProblem(design, task.support_labels, text, torch.full_like(text, variance))


def assert_near(actual: Tensor, wanted: Tensor, tolerance: float = EXACT) -> None:
    """Largest difference at most `tolerance`, relative to the largest number wanted where that exceeds 1."""
    assert actual.shape == wanted.shape, f"shape {tuple(actual.shape)} instead of {tuple(wanted.shape)}"
    error = float((actual - wanted).abs().max())
    assert error <= tolerance * max(1.0, float(wanted.abs().max())), f"largest difference {error:.3g}"
