"""laplace-torch (Daxberger et al. 2021) on the same small problems: a Laplace approximation not ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from small_problems import SmallProblem
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


@dataclass(frozen=True)
class TheirLaplace:
    """A fitted `laplace.Laplace` over the weights of a linear layer without bias, classes outermost."""

    fitted: Any

    @property
    def covariance(self) -> Tensor:
        """Posterior covariance (C D, C D); for `full` alone."""
        return self.fitted.posterior_covariance

    @property
    def variance(self) -> Tensor:
        """Posterior variances (C D,); for `diag` alone."""
        return self.fitted.posterior_variance

    @property
    def log_evidence(self) -> Tensor:
        """The Laplace log marginal likelihood, ()."""
        return self.fitted.log_marginal_likelihood()

    def logits(self, design: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, C) and covariance (N, C, C) of the linearised model's logits."""
        return self.fitted._glm_predictive_distribution(design)


def their_laplace(problem: SmallProblem, mode: Tensor, structure: str) -> TheirLaplace:
    """Fitted at `mode` (C, D) with the Hessian `structure` full, diag or kron, in float64 and in one batch.

    The mode is given, not found: what is compared is the curvature, the covariance and the predictive.
    """
    from laplace import Laplace

    layer = torch.nn.Linear(*reversed(mode.shape), bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(mode)
    variance = problem.variance.reshape(-1)
    with torch.enable_grad():
        fitted = Laplace(
            layer,
            "classification",
            subset_of_weights="all",
            hessian_structure=structure,
            prior_precision=1 / (variance[0] if structure == "kron" else variance),
            prior_mean=problem.mean.reshape(-1),
        )
        fitted.fit(DataLoader(TensorDataset(problem.design, problem.labels), batch_size=len(problem.labels)))
    return TheirLaplace(fitted)
