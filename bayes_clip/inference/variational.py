"""The variational engine: Pyro's SVI on the model program itself, mean-field or low-rank."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal, init_to_value
from pyro.optim import ClippedAdam
from torch import Tensor

from bayes_clip.gaussian import Diagonal
from bayes_clip.gaussian.point import LowRank
from bayes_clip.inference.program import Program
from bayes_clip.inference.sites import PyroModel
from bayes_clip.progress import track
from bayes_clip.randomness import own_random_numbers
from bayes_clip.threads import one_thread

STEPS = 500
DRAFT_STEPS = 200  # enough to compare prior variances by
FINAL_RATE = 0.05  # of the first learning rate, reached geometrically at the last step
RANK = 10
STEP_PER_DEVIATION = 0.03
SCALE_STEP = 0.03
START_SCALE = 0.3  # of the prior standard deviation


def variational(
    model: PyroModel,
    program: Program,
    inputs: Tensor,
    labels: Tensor,
    covariance: str,
    seed: int,
    steps: int = STEPS,
) -> Diagonal | LowRank:
    """Maximise the ELBO over Gaussians with a diagonal or (rank 10) low-rank covariance.

    The guide starts at the prior mean with 0.3 of the prior's width, one width for all sites (the root of
    their mean prior variance: sites of very different priors are served badly). Steps are in units of it,
    with one draw each; the answer depends on `seed`.
    """
    deviation = float(program.prior_variance.mean().sqrt())
    start = init_to_value(values=program.values(program.prior_mean.clone()))

    def rates(name: str) -> dict[Any, Any]:
        rate = SCALE_STEP if "scale" in name else STEP_PER_DEVIATION * deviation
        return {"lr": rate, "lrd": FINAL_RATE ** (1 / steps)}

    with _own_world(inputs.device, seed), one_thread(len(inputs) * program.prior_mean.numel()):
        guide: AutoNormal | AutoLowRankMultivariateNormal
        if covariance == "low_rank":
            guide = AutoLowRankMultivariateNormal(model, start, START_SCALE * deviation, rank=RANK)
        else:
            guide = AutoNormal(model, init_loc_fn=start, init_scale=START_SCALE * deviation)
        optimizer = ClippedAdam(cast(dict[Any, Any], rates))  # Pyro takes a function of the name too
        svi = SVI(model, guide, optimizer, Trace_ELBO())
        for _ in track(range(steps), "Variational inference"):
            svi.step(inputs, labels)
        if isinstance(guide, AutoLowRankMultivariateNormal):
            return _low_rank(guide, program)
        fitted = [
            torch.cat([getattr(part, site.name).detach().reshape(-1) for site in program.sites])
            for part in (guide.locs, guide.scales)
        ]
    location, scale = (flat.reshape(program.prior_mean.shape) for flat in fitted)
    return Diagonal(location, scale.square())


@contextmanager
def _own_world(device: torch.device, seed: int) -> Iterator[None]:
    """Pyro's global state (parameters, random numbers, validation) for the length of one fit."""
    with (
        pyro.get_param_store().scope(),
        own_random_numbers(device, seed),
        torch.enable_grad(),
        pyro.validation_enabled(False),
    ):
        yield


def _low_rank(guide: AutoLowRankMultivariateNormal, program: Program) -> LowRank:
    """The guide's Gaussian in the shape of the weights (C, D)."""
    fitted = guide.get_posterior()
    shape = program.prior_mean.shape
    return LowRank(
        fitted.loc.detach().reshape(shape),
        fitted.cov_diag.detach().reshape(shape),
        fitted.cov_factor.detach().reshape(*shape, -1),
    )
