"""The NUTS engine: Pyro's sampler on the model program itself. The reference for small problems."""

from __future__ import annotations

import logging

import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide.initialization import init_to_value
from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.gaussian.point import Draws
from bayes_clip.inference.program import Program
from bayes_clip.inference.sites import PyroModel
from bayes_clip.randomness import own_random_numbers
from bayes_clip.threads import one_thread

DRAWS = 300
WARMUP = 300
SLOW_ABOVE = 5_000  # weights: minutes
REFUSED_ABOVE = 100_000  # weights: hours, and the draws alone take gigabytes

log = logging.getLogger(__name__)


def nuts(model: PyroModel, program: Program, inputs: Tensor, labels: Tensor, seed: int) -> Draws:
    """300 draws after 300 warm-up steps, one chain started at the prior mean; depends on `seed`.

    Raises:
        UserError: more than 100,000 weights.
    """
    weights = program.prior_mean.numel()
    if weights > REFUSED_ABOVE:
        raise UserError(
            f"engine nuts: {weights:,} weights would take hours; it is for small problems (at most "
            f"{REFUSED_ABOVE:,}); use ekf or laplace"
        )
    if weights > SLOW_ABOVE:
        log.warning("engine nuts: %s weights; this takes minutes, not seconds", f"{weights:,}")
    start = init_to_value(values=program.values(program.prior_mean.clone()))
    with (
        own_random_numbers(inputs.device, seed),
        torch.enable_grad(),
        pyro.validation_enabled(False),
        one_thread(len(inputs) * weights),
    ):
        kernel = NUTS(model, init_strategy=start)
        chain = MCMC(kernel, num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
        chain.run(inputs, labels)
        samples = chain.get_samples()
    flat = torch.cat([samples[site.name].reshape(DRAWS, -1) for site in program.sites], dim=1)
    return Draws(flat.reshape(DRAWS, *program.prior_mean.shape))
