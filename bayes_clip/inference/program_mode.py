"""The posterior mode of any program, by L-BFGS on the weights in units of their prior deviation."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bayes_clip.inference.program import Program

MOST_STEPS = 2000
ROWS_PER_CHUNK = 4096


def mode_of_program(program: Program, inputs: Tensor, targets: Tensor) -> Tensor:
    """Weights, shaped like the prior mean, that maximise log p(targets | weights) + log p(weights).

    A local mode, found from the prior mean; the only one where the logits are linear. `inputs` (N, F).
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
    limits = {"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=limits)
    return program.prior_mean + deviation * torch.from_numpy(found.x).to(deviation).reshape(deviation.shape)
