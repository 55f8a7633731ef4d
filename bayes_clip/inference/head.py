"""Reading a model program as a linear head: one Gaussian site of class weights, logits linear in them.

The prior comes from the Pyro sites, the design from the logits by automatic differentiation; nothing is
written down a second time. A program that is no linear head is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.distributions import Independent, Normal
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.model import AdapterModel

ROWS_PER_CHUNK = 4096
REFUSED = "this version fits linear heads: one Normal site of class weights (C, D), logits linear in it"


@dataclass(frozen=True)
class LinearHead:
    """logits = design(inputs) Wᵀ with W ~ N(prior_mean, diag prior_variance), both (C, D)."""

    site: str
    prior_mean: Tensor
    prior_variance: Tensor
    design: Callable[[Tensor], Tensor]  # inputs (N, F) -> (N, D)


def linear_head(model: AdapterModel, like: Tensor) -> LinearHead:
    """The linear head that `model` is, with tensors in the dtype and on the device of `like`.

    Raises:
        UserError: several sites, a prior that is not Gaussian, or logits that are not linear in the weights
            with the same design for every class.
    """
    name = type(model).__name__
    prior = model.prior()
    if len(prior) != 1:
        raise UserError(f"{name}: has {len(prior)} sites; {REFUSED}")
    site, distribution = next(iter(prior.items()))
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal) or len(base.batch_shape) != 2:
        raise UserError(f"{name}: site '{site}' is no Normal of shape (C, D); {REFUSED}")
    mean, variance = base.mean.to(like).contiguous(), base.variance.to(like).contiguous()

    def design(inputs: Tensor) -> Tensor:
        """∂ logit of class 0 / ∂ weights of class 0, (N, D): the same for every class."""

        def first_logit(row: Tensor, one: Tensor) -> Tensor:
            weights = torch.cat([row[None], torch.zeros_like(mean[1:])])
            return model.logits({site: weights}, one[None])[0, 0]

        per_row = torch.func.vmap(torch.func.grad(first_logit), in_dims=(None, 0))
        return torch.cat([per_row(mean[0], part) for part in inputs.to(like).split(ROWS_PER_CHUNK)])

    _check_linear(model, site, mean, design, name)
    return LinearHead(site, mean, variance, design)


def _check_linear(
    model: AdapterModel, site: str, mean: Tensor, design: Callable[[Tensor], Tensor], name: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, model.text_features.shape[1], generator=generator).to(mean)
    weights = torch.randn(mean.shape, generator=generator).to(mean)
    actual = model.logits({site: weights}, inputs)
    if not torch.allclose(
        actual, design(inputs) @ weights.mT, rtol=1e-3, atol=1e-3 * float(actual.abs().max())
    ):
        raise UserError(
            f"{name}: its logits are not linear in '{site}' with one design for all classes; {REFUSED}"
        )
