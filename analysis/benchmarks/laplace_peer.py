"""laplace-torch (Daxberger et al. 2021) as its user has it: a last-layer posterior over a trained head."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from analysis.benchmarks.contest import Partly, fastest

STRUCTURES = ("kron", "diag")
BACKENDS = ("BackPackGGN", "AsdlGGN", "CurvlinopsGGN")
TRIAL_ROWS = 32
FIT_BATCH = 64
FIT_NUMBERS = 2**30  # of the C² D curvature entries a row that some backends make of a batch
HEAD_STEPS = 200
TWIN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Head:
    """A linear head with a Gaussian prior: what is approximated. N rows, C classes, D features."""

    design: Tensor  # (N, D) features times the logit scale
    labels: Tensor  # (N,)
    prior_mean: Tensor  # (C, D)
    prior_variance: float


class Network(torch.nn.Module):
    """A network whose body has run: features in, logits out."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.body = torch.nn.Identity()
        self.head = torch.nn.Linear(weights.shape[1], len(weights), bias=False, device=weights.device)
        with torch.no_grad():
            self.head.weight.copy_(weights)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))


def trained(head: Head) -> Network:
    """The posterior mode by PyTorch's L-BFGS, from zero-shot weights: what laplace-torch expects to be given.

    scikit-learn is no alternative here: its LogisticRegression shrinks to zero, not to the text features.
    """
    network = Network(head.prior_mean)
    weights = network.head.weight
    optimizer = torch.optim.LBFGS([weights], max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = cross_entropy(network(head.design), head.labels, reduction="sum")
        value = fit + (weights - head.prior_mean).square().sum() / (2 * head.prior_variance)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return network


def posterior(network: Network, head: Head, structure: str, backend: str) -> Any:
    """laplace-torch's posterior over the head, with our prior; `structure` is kron or diag."""
    import laplace
    from laplace import curvature

    with torch.enable_grad(), quietly():
        found = laplace.Laplace(
            network,
            "classification",
            subset_of_weights="last_layer",
            hessian_structure=structure,
            backend=getattr(curvature, backend),
            prior_precision=1 / head.prior_variance,
            prior_mean=head.prior_mean.reshape(-1),
        )
        found.fit(DataLoader(TensorDataset(head.design, head.labels), batch_size=batch_rows(head)))
    return found


def tune(found: Any, head: Head) -> None:
    """Choose the prior precision by marginal likelihood, from ours on."""
    with torch.enable_grad(), quietly():
        found.optimize_prior_precision(
            pred_type="glm",
            method="marglik",
            prior_structure="scalar",
            init_prior_prec=1 / head.prior_variance,
        )


def batch_rows(head: Head) -> int:
    """Rows of a batch that its fit is given: 64, fewer where many classes would fill the memory."""
    classes, features = head.prior_mean.shape
    return max(1, min(FIT_BATCH, FIT_NUMBERS // (classes**2 * features)))


def fastest_backend(head: Head, structure: str) -> str:
    """The curvature backend that fits a few rows in the least time."""
    rows = min(TRIAL_ROWS, batch_rows(head))
    few = Head(head.design[:rows], head.labels[:rows], head.prior_mean, head.prior_variance)
    network = Network(head.prior_mean)

    def way(backend: str) -> Callable[[], Any]:
        return lambda: posterior(network, few, structure, backend)

    return fastest({backend: way(backend) for backend in BACKENDS}, head.design.device)


def probit(found: Any, rows: Tensor, timed_rows: int, chunk: int) -> Partly[Tensor]:
    """The library's default predictive of the first rows, in chunks; the rest takes as long in proportion."""
    start = time.perf_counter()
    parts = [found(part, pred_type="glm", link_approx="probit") for part in rows[:timed_rows].split(chunk)]
    seconds = time.perf_counter() - start
    return Partly(torch.cat(parts), seconds * (len(rows) / timed_rows - 1))


def sampled(found: Any, rows: Tensor) -> Tensor:
    """The average softmax over 100 draws of the weights: the library's quickest predictive, all rows."""
    return found(rows, pred_type="nn", link_approx="mc", n_samples=100)


def variances(found: Any, rows: Tensor, chunk: int) -> Tensor:
    """Variances (N, C) of the logits by the library's own code: diag in closed form, else by Jacobians."""
    return torch.cat(
        [found._glm_predictive_distribution(part, diagonal_output=True)[1] for part in rows.split(chunk)]
    )


def probit_twin(found: Any, rows: Tensor, known: Tensor) -> Tensor:
    """`probit` of all rows in closed form, out of the posterior that the library found.

    For answers only, never for seconds: the library's way through Jacobians takes minutes for them.

    Raises:
        ArithmeticError: the rows that the library did itself (`known`, the first ones) come out otherwise.
    """
    mean, variance = found.model(rows).detach(), closed_form_variances(found, rows)
    probabilities = (mean / (1 + math.pi / 8 * variance).sqrt()).softmax(-1)
    off = float((probabilities[: len(known)] - known).abs().max())
    if not off <= TWIN_TOLERANCE:
        raise ArithmeticError(f"laplace-torch's probit and its closed form differ by {off:.3g}")
    return probabilities


def closed_form_variances(found: Any, rows: Tensor) -> Tensor:
    """Variances (N, C) of the logits under the library's posterior, in its eigenbases."""
    precision: Any = found.posterior_precision
    if not hasattr(precision, "eigenvectors"):
        return found.functional_variance_fast(rows)[1].detach()
    (by_class, by_feature), (alpha, beta) = precision.eigenvectors[0], precision.eigenvalues[0]
    spread = 1 / (torch.outer(alpha, beta) + precision.deltas[0])
    return ((rows @ by_feature).square() @ spread.mT @ by_class.square().mT).detach()


@contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of the packages below laplace-torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
