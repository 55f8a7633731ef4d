"""A posterior's predictive as one plain torch module: features in, probabilities, novelty and verdict out.

It holds tensors and torch operations alone: what torch.export or ONNX makes of it needs no bayes_clip.
It says what `Posterior.predict` says, in float64 from the moments on, as there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bayes_clip.errors import UserError
from bayes_clip.gaussian.logits import evenly_spaced
from bayes_clip.gaussian.point import Draws, Point
from bayes_clip.inference.program import Program
from bayes_clip.leaving.moments import Moments, moments_of
from bayes_clip.observation import Observation
from bayes_clip.posterior import Posterior
from bayes_clip.predictive import MONTE_CARLO_DRAWS

TRIALS = 16  # rows on which a map that is taken for affine is tried
AFFINE = {torch.float32: 1e-5, torch.float64: 1e-11}  # relative: what rounding may make of it
OUTPUTS = ("probabilities", "novelty", "outside")


class Affine(nn.Module):
    """x A + b for rows (N, F); where A is a multiple of the identity and b nothing, that multiple of x."""

    def __init__(self, matrix: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.plain = matrix.shape[0] == matrix.shape[1] and not offset.any() and _is_scaled(matrix)
        self.register_buffer("matrix", matrix[0, 0].clone() if self.plain else matrix)
        self.register_buffer("offset", offset)
        self.matrix: Tensor
        self.offset: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.matrix if self.plain else rows @ self.matrix + self.offset


class PlugIn(nn.Module):
    """softmax of the mean logits."""

    def forward(self, mean: Tensor, variance: Tensor, design: Tensor) -> Tensor:
        return mean.softmax(-1)


class ClosedForm(nn.Module):
    """p_k ∝ 1 / Σ_j exp((μ_j − μ_k) / √(1 + π/8 (σ_k² + σ_j²))), all pairs: N C² numbers (`mean_field`)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, mean: Tensor, variance: Tensor, design: Tensor) -> Tensor:
        scaled = self.scale * variance
        shrink = (1 + math.pi / 8 * (scaled[:, :, None] + scaled[:, None, :])).rsqrt()
        sums = ((mean[:, None, :] - mean[:, :, None]) * shrink).exp().sum(-1)
        inverse = 1 / sums
        return inverse / inverse.sum(-1, keepdim=True)


class OverDraws(nn.Module):
    """The average softmax over draws (S, C, D) of a Markov chain, evenly spaced along it."""

    def __init__(self, samples: Tensor, observation: Observation) -> None:
        super().__init__()
        self.register_buffer("draws", samples[evenly_spaced(len(samples), MONTE_CARLO_DRAWS)])
        self.draws: Tensor
        self.observation = observation

    def forward(self, mean: Tensor, variance: Tensor, design: Tensor) -> Tensor:
        logits = torch.einsum("nd,scd->snc", design, self.draws)
        return self.observation.class_logits(logits).softmax(-1).double().mean(0)


class PredictiveProgram(nn.Module):
    """Features (N, F), float32 -> probabilities (N, C) float32, novelty (N,) and, with a limit, outside (N,).

    `outside`: novelty above the limit, as `predict` says "out".
    """

    def __init__(
        self,
        front: nn.Module,
        moments: Moments | None,
        predictive: nn.Module,
        observation: Observation,
        dtype: torch.dtype,
        unit: bool,
        limit: float | None,
    ) -> None:
        super().__init__()
        self.front, self.moments, self.predictive = front, moments, predictive
        self.observation, self.dtype, self.unit, self.limit = observation, dtype, unit, limit

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        rows = features.to(self.dtype)
        if self.unit:
            rows = rows / rows.square().sum(-1, keepdim=True).sqrt()
        design = self.front(rows)
        if self.moments is None:
            mean = self.observation.class_logits(design)
            variance = torch.zeros_like(mean)
        else:
            inner, spread = self.moments(design)
            mean, variance = self.observation.class_logits(inner), self.observation.class_variance(spread)
        probabilities = self.predictive(mean.double(), variance.double(), design)
        if self.moments is None:
            novelty = 1 - probabilities.amax(-1)
        else:
            winner = probabilities.argmax(-1, keepdim=True)
            novelty = (variance - mean).double().gather(1, winner)[:, 0]
        said = (probabilities.float(), novelty.float())
        return said if self.limit is None else (*said, novelty > self.limit)


def predictive_program(posterior: Posterior, limit: float | None) -> PredictiveProgram:
    """The module of a posterior; `limit`: the novelty above which a row is "out", or None.

    A linear head under any belief; any program under a point estimate whose logits are an affine map of the
    features at those weights.

    Raises:
        UserError: says which program, engine or predictive cannot be exported, and why.
    """
    program, kind = posterior.logits.program, type(posterior.program)
    name, weights = posterior.source.settings.model, posterior.weights
    if posterior.class_offset is not None:
        raise UserError(
            "export: --class-prior even is not exported; fit with --class-prior support, and divide the "
            "probabilities by the numbers of labels"
        )
    if kind.takes in ("pixels", "pooled"):
        raise UserError(
            f"export: {name} takes {kind.takes}, made in the encoder, and what is exported takes features; "
            "fit a program that takes features, such as linear_probe"
        )
    common: dict[str, Any] = {
        "observation": program.observation,
        "dtype": weights.mean.dtype,
        "unit": kind.takes == "unit",
    }
    width = posterior.program.width
    if isinstance(weights, Point):
        front = _affine(lambda rows: program.logits(weights.mean, rows), width, weights.mean, kind.takes)
        if front is None:
            raise UserError(
                f"export: the logits of {name} are no affine map of the features, and its own code is not "
                "exported; fit a linear head, such as linear_probe or gda"
            )
        return PredictiveProgram(front, None, PlugIn(), limit=limit, **common).eval()
    if not program.is_head:
        raise UserError(
            f"export: {name} is no linear head: its variance takes the Jacobian of the program at every row, "
            "which is bayes_clip's own; fit a linear head, or the same program with --engine map"
        )
    front = _affine(program.design, width, weights.mean, kind.takes)
    if front is None:
        raise UserError(
            f"export: {name} is linear in its weights but not in the features, and its own code is not "
            "exported; fit a program that takes the features as they are"
        )
    predictive = _predictive(posterior, program)
    return PredictiveProgram(front, moments_of(weights), predictive, limit=limit, **common).eval()


def _predictive(posterior: Posterior, program: Program) -> nn.Module:
    kind, settings = posterior.predictive, posterior.source.settings
    if kind == "plug_in":
        return PlugIn()
    if kind == "monte_carlo":
        if isinstance(posterior.weights, Draws):
            return OverDraws(posterior.weights.samples, program.observation)
        raise UserError(
            "export: --predictive monte_carlo of a Gaussian posterior draws by a hash of each row, which "
            "rounds apart elsewhere; fit with --predictive closed_form or auto"
        )
    return ClosedForm(1.0 if settings.predictive == "closed_form" else posterior.source.covariance_scale)


@torch.no_grad()
def _affine(function: Callable[[Tensor], Tensor], width: int, like: Tensor, takes: str) -> Affine | None:
    """`function` of rows (N, F) as x A + b, read off rows along the axes; None where it is none.

    Where rows have unit length, it need be affine on those alone.
    """
    axes = torch.eye(width, dtype=like.dtype)
    ahead, behind = function(axes), function(-axes)
    matrix, offset = (ahead - behind) / 2, ((ahead + behind) / 2).mean(0)
    trials = torch.randn(TRIALS, width, generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    if takes == "unit":
        trials = trials / trials.norm(dim=-1, keepdim=True)
    wanted, found = function(trials), trials @ matrix + offset
    close = AFFINE[like.dtype] * wanted.abs().max() if like.dtype in AFFINE else 0.0
    return Affine(matrix, offset) if bool(((found - wanted).abs() <= close).all()) else None


def _is_scaled(matrix: Tensor) -> bool:
    return bool(torch.equal(matrix, matrix[0, 0] * torch.eye(len(matrix), dtype=matrix.dtype)))
