"""The posterior mode of any program, by L-BFGS on the weights in units of their prior deviation."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bayes_clip.inference.program import Program

MOST_STEPS = 2000
# A mode is found when a step gains less than this share of the objective, or its slope, per prior deviation,
# is below that. In float32 the objective itself is known to about seven digits.
SMALLEST_GAINS = {torch.float64: 1e-15, torch.float32: 1e-6}
SMALLEST_SLOPES = {torch.float64: 1e-9, torch.float32: 1e-3}
ROWS_PER_CHUNK = 4096


def mode_of_program(program: Program, inputs: Tensor, targets: Tensor) -> Tensor:
    """Weights, shaped like the prior mean, that maximise log p(targets | weights) + log p(weights).

    A local mode, found from the prior mean; the only one where the logits are linear. `inputs` (N, F). In
    float32 to about a thousandth of a prior deviation where the posterior is as wide as that.
    """
    deviation = program.prior_variance.sqrt()

    def objective(scaled: Tensor, rows: Tensor, labels: Tensor) -> Tensor:
        logits = program.logits(program.prior_mean + deviation * scaled, rows)
        return -program.observation.log_likelihood(logits, labels).sum()

    differentiate = torch.func.grad_and_value(objective)
    parts = list(zip(inputs.split(ROWS_PER_CHUNK), targets.split(ROWS_PER_CHUNK), strict=True))

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = torch.from_numpy(flat).to(deviation).reshape(deviation.shape)
        gradient, value = scaled.double(), float(scaled.double().square().sum()) / 2
        for rows, labels in parts:
            slope, loss = differentiate(scaled, rows, labels)
            gradient, value = gradient + slope.double(), value + float(loss)
        return value, gradient.reshape(-1).cpu().numpy()

    start = np.zeros(deviation.numel())
    known = torch.promote_types(deviation.dtype, torch.float32)
    limits = {
        "maxiter": MOST_STEPS,
        "maxfun": 2 * MOST_STEPS,
        "ftol": SMALLEST_GAINS[known],
        "gtol": SMALLEST_SLOPES[known],
    }
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=limits)
    return program.prior_mean + deviation * torch.from_numpy(found.x).to(deviation).reshape(deviation.shape)
