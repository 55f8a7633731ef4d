"""A made-up comparison for the tests of the report: three engines, two tasks, two seeds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bayes_clip.data.task import Task, make_task
from bayes_clip.evaluation.results import METRIC_COLUMNS, Cell, Comparison, Run, score

ENGINES = {"zero_shot": 0.8, "map": 2.0, "ekf": 2.2}  # how strongly the logits point at the label
ROWS, OUTSIDE_ROWS, CLASSES = 120, 60, 4


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def run(
    task: str, engine: str, seed: int, shots: Cell = 4, ood: bool = True, strength: float | None = None
) -> Run:
    generator = np.random.default_rng([seed, len(task), list(ENGINES).index(engine)])
    labels = np.arange(ROWS) % CLASSES
    signal = (ENGINES[engine] if strength is None else strength) * np.eye(CLASSES)[labels]
    probabilities = softmax(signal + generator.normal(size=(ROWS, CLASSES)))
    novelty = generator.gamma(2.0, 1.0, ROWS)
    outside = generator.gamma(8.0, 1.0, OUTSIDE_ROWS) if ood else None
    row: dict[str, Cell] = dict.fromkeys(METRIC_COLUMNS, "")
    row |= {"task": task, "model": "linear_probe", "engine": engine, "shots": shots, "seed": seed}
    row |= {"n_support": 16, "n_query": ROWS, "covariance": "" if engine != "ekf" else "class_block"}
    row |= {"prior_variance": 0.01, "fit_seconds": 0.2 + 0.1 * seed, "predict_seconds": 0.01}
    row |= score(probabilities, labels, novelty, outside)
    return Run(
        row=row,
        probabilities=probabilities,
        labels=labels,
        novelty=novelty,
        epistemic=generator.gamma(1.0, 0.1, ROWS) if engine == "ekf" else np.zeros(ROWS),
        ood_novelty=outside,
        ood_probabilities=softmax(generator.normal(size=(OUTSIDE_ROWS, CLASSES))) if ood else None,
    )


def task(name: str, pictures: bool) -> Task:
    generator = torch.Generator().manual_seed(0)
    return make_task(
        name,
        torch.randn(16, 8, generator=generator),
        torch.arange(16) % CLASSES,
        torch.randn(ROWS, 8, generator=generator),
        torch.arange(ROWS) % CLASSES,
        class_names=["a <b>bold</b> one", "two", "$5 or 5$", "a class with a very long name"],
        text_features=torch.randn(CLASSES, 8, generator=generator),
        ood_features=torch.randn(OUTSIDE_ROWS, 8, generator=generator) if pictures else None,
        query_images=torch.randint(0, 255, (ROWS, 3, 16, 16), generator=generator, dtype=torch.uint8)
        if pictures
        else None,
    )


def made_up(shots: tuple[Cell, ...] = (4,), seeds: tuple[int, ...] = (0, 1)) -> Comparison:
    """Task `first` has pictures and out-of-distribution rows, task `second` has neither."""
    runs = [
        run(name, engine, seed, k, ood=name == "first")
        for name in ("first", "second")
        for k in shots
        for seed in seeds
        for engine in ENGINES
    ]
    return Comparison(
        runs=tuple(runs),
        tasks={"first": task("first", True), "second": task("second", False)},
        config={"command": "bayes-clip compare first second --shots 4 --seeds 0,1", "seeds": list(seeds)},
        notes=("class 'two' has 3 support images, 4 asked: all used",),
    )


@pytest.fixture
def make_comparison() -> Callable[..., Comparison]:
    """`make_comparison(shots=(4,), seeds=(0, 1))`: see `made_up`."""
    return made_up


@pytest.fixture(scope="session")
def comparison() -> Comparison:
    """The made-up comparison at 4 shots, for tests that only read it."""
    return made_up()
