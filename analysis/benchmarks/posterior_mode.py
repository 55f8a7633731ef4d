"""Case `map`: the mode of softmax regression with prior N(0, v), no intercept.

scikit-learn's LogisticRegression has no prior mean, so ours is zero here; C = v makes the penalties equal.
Its solvers are tried at a tolerance of 1e-6. Agreement: relative difference of the objective (negative log
joint density in float64).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from analysis.benchmarks.contest import Contest, Size, Work, fastest
from analysis.benchmarks.features import clip_like_task
from analysis.benchmarks.peers import titled
from bayes_clip.inference.mode import find_mode, mode_problem, weights_of

PRIOR_VARIANCE = 0.1  # wider than with text features: the mean is zero
SOLVERS = ("lbfgs", "newton-cg")
SOLVER_TOLERANCE = 1e-6
MOST_ITERATIONS = 10_000
TOLERANCE = 1e-6  # relative


def contests(size: Size, device: torch.device) -> Iterator[Contest]:
    """One contest, against the quickest solver; on the CPU alone, where scikit-learn is."""
    name = titled("scikit-learn", "LogisticRegression")
    task = clip_like_task(size.classes, size.features, size.rows, size.classes)
    design, labels = task.logit_scale * task.support_features, task.support_labels
    mean = torch.zeros(size.classes, size.features)
    ways = {solver: _theirs(design.double().numpy(), labels.numpy(), solver) for solver in SOLVERS}
    chosen = fastest(ways, device, tries=0)

    @torch.no_grad()
    def ours() -> Tensor:
        problem = mode_problem(design, labels, mean, torch.full_like(mean, PRIOR_VARIANCE))
        return weights_of(problem, find_mode(problem, dtype=torch.float32))

    def agreement(ours: Tensor, theirs: Tensor) -> float:
        values = [objective(weights, design, labels) for weights in (ours, theirs)]
        return abs(values[0] - values[1]) / values[1]

    yield Contest(
        case=f"map@{size}",
        ours=ours,
        peers={f"{name} {chosen}": ways[chosen]},
        agreement=agreement,
        tolerance=TOLERANCE,
        work=work(size),
        rounds=3,
        dtype=torch.float64,
    )


def work(size: Size) -> Work:
    """Of ten Newton steps of ten conjugate gradients each, the least that such problems take: 4 N C D each.

    Bytes: the design and two (N, C) matrices, read once for each.
    """
    products = 100
    numbers = size.rows * (size.features + 2 * size.classes)
    return Work(products * 4 * size.rows * size.classes * size.features, products * 8 * numbers)


def objective(weights: Tensor, design: Tensor, labels: Tensor) -> float:
    """−log p(y | W) − log p(W) up to a constant, in nats."""
    fit = cross_entropy(design.double() @ weights.double().mT, labels, reduction="sum")
    return float(fit + weights.double().square().sum() / (2 * PRIOR_VARIANCE))


def _theirs(design: np.ndarray, labels: np.ndarray, solver: str) -> Callable[[], Tensor]:
    from sklearn.linear_model import LogisticRegression

    def way() -> Tensor:
        model = LogisticRegression(
            C=PRIOR_VARIANCE,
            fit_intercept=False,
            solver=solver,
            tol=SOLVER_TOLERANCE,
            max_iter=MOST_ITERATIONS,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.from_numpy(model.fit(design, labels).coef_)

    return way
