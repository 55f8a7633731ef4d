"""Simulation-based calibration: draw the truth from the program's own prior, infer it, rank it.

Where an engine's posterior is exact, the rank of the true value of any quantity among posterior draws is
uniform, whatever the quantity (Talts, Betancourt, Simpson, Vehtari & Gelman 2018). Ranked here are weights,
differences of logits at probe rows, and the log likelihood of the labels, which sees what the others do not
(Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman & Vehtari 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation import uniformity
from bayes_clip.evaluation.coverage import Coverage, coverage
from bayes_clip.evaluation.pareto import MOST_WEIGHTS, posterior_pareto_k, threshold
from bayes_clip.evaluation.simulated import Sites, densities, posterior_draws, program_of, seed_of, simulate
from bayes_clip.evaluation.uniformity import Uniformity, check_uniform
from bayes_clip.fitting import fit
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.inference.program import read_program
from bayes_clip.model import AdapterModel
from bayes_clip.observation import SOFTMAX
from bayes_clip.progress import track
from bayes_clip.settings import FitSettings

DRAWS = 199  # so that 50, 80 and 95 % intervals end on whole ranks
MOST_RANKED = 12  # weights that are ranked, evenly spaced among all
LEAST_SIMULATIONS = 20
LIKELIHOOD = "log likelihood of the labels"
PARETO_FITS = 20  # data sets whose posterior also gets a Pareto-k̂
UNCHECKED = ("zero_shot", "map", "sgd")  # a point claims nothing that could be wrong by its own account


@dataclass(frozen=True)
class Calibration:
    """Ranks of the truth under one engine: N simulations, Q quantities, ranks in 0..`draws`."""

    names: tuple[str, ...]  # (Q,)
    ranks: np.ndarray  # (N, Q) whole numbers
    scores: np.ndarray  # (N, Q) (truth − posterior mean) / posterior standard deviation
    pareto_ks: np.ndarray  # (n,) of the first n simulations; empty where there is no density
    draws: int = DRAWS

    @cached_property
    def checks(self) -> list[Uniformity]:
        """The test of each quantity."""
        return [check_uniform(column, self.draws) for column in self.ranks.T]

    @property
    def verdict(self) -> str:
        """`passes`, `too narrow`, `too wide`, `shifted` or `misshapen`."""
        return uniformity.verdict(self.checks, [name == LIKELIHOOD for name in self.names])

    @property
    def p_value(self) -> float:
        """The smallest of the quantities' p-values, times their number."""
        return min(1.0, len(self.checks) * min(check.p_value for check in self.checks))

    @property
    def width_needed(self) -> float:
        """How many times as wide the posterior should have been: median |score| over that of a normal."""
        picked = [name != LIKELIHOOD for name in self.names]
        return float(np.median(np.abs(self.scores[:, picked])) / 0.6744897501960817)

    @property
    def coverage(self) -> list[Coverage]:
        """Of the weights and logits; the log likelihood has no interval that anyone reads."""
        return coverage(self.ranks[:, [name != LIKELIHOOD for name in self.names]], self.draws)

    @property
    def pareto_k(self) -> float | None:
        """Median k̂; None where there is none."""
        return float(np.median(self.pareto_ks)) if len(self.pareto_ks) else None

    @property
    def pareto_share(self) -> float | None:
        """Share of data sets whose k̂ lies above the threshold."""
        return float((self.pareto_ks > threshold()).mean()) if len(self.pareto_ks) else None

    def __repr__(self) -> str:
        simulations, quantities = self.ranks.shape
        return f"Calibration({self.verdict}: {simulations} simulations, {quantities} quantities)"


def calibrate(
    task: Task, settings: FitSettings, prior_logit_variance: float, simulations: int, seed: int = 0
) -> Calibration:
    """Rank the truth among draws from the engine of `settings`, over `simulations` data sets.

    The truth is drawn from the program at v = `prior_logit_variance` / s² and inferred at the same v, on the
    support features of `task`, whose labels are replaced. Truth and labels depend on `seed` and not on the
    engine, so engines meet the same data sets.

    Raises:
        UserError: an engine that is a point, fewer than 20 simulations, or what `fit` refuses.
    """
    if settings.engine in UNCHECKED:
        raise UserError(f"engine {settings.engine}: a point estimate claims no doubt, so nothing to check")
    require_enough(simulations)
    prior_variance = prior_logit_variance / task.logit_scale**2
    settings = replace(
        settings, prior_variance=prior_variance, predictive="monte_carlo", dtype="float64", device="cpu"
    )
    program = program_of(task, settings.model, prior_variance)
    observation = read_program(program, task.support_features.double()).observation
    if observation is not SOFTMAX:
        raise UserError(f"{settings.model}: observes {observation.name}; labels of a softmax can be checked")
    weights, _ = simulate(program, task.support_features.double(), seed)
    ranks, scores, pareto_ks = [], [], []
    described = f"{settings.engine} {settings.family} at s²v = {prior_logit_variance:g}"
    for index in track(range(simulations), f"Checking {described}"):
        rank, score, pareto = _one(task, program, settings, seed_of(seed, index), index < PARETO_FITS)
        ranks.append(rank)
        scores.append(score)
        pareto_ks += [] if pareto is None else [pareto]
    return Calibration(_names(task, weights), np.stack(ranks), np.stack(scores), np.array(pareto_ks))


def require_enough(simulations: int) -> None:
    """Refuse fewer simulations than can tell anything.

    Raises:
        UserError: fewer than 20.
    """
    if simulations < LEAST_SIMULATIONS:
        raise UserError(
            f"--simulations {simulations}: too few to tell anything; the least is {LEAST_SIMULATIONS}"
        )


def rank_of(truth: Tensor, draws: Tensor, seed: int) -> np.ndarray:
    """Rank in 0..S of each true value (Q,) among its draws (S, Q); ties are broken at random."""
    below, equal = (draws < truth).sum(0).numpy(), (draws == truth).sum(0).numpy()
    return below + np.random.default_rng(seed).integers(0, equal + 1)


def _one(
    task: Task, program: AdapterModel, settings: FitSettings, seed: int, with_pareto: bool
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """One data set: ranks (Q,), scores (Q,) and, if asked and there is a density, k̂."""
    inputs = task.support_features.double()
    weights, labels = simulate(program, inputs, seed)
    drawn = replace(task, support_labels=labels)
    posterior = fit(drawn, settings).posterior
    sites, _ = posterior_draws(posterior, DRAWS, seed_of(seed, 1))
    truth = _quantities(program, {name: value[None] for name, value in weights.items()}, drawn)
    draws = _quantities(program, sites, drawn)
    score = (truth[0] - draws.mean(0)) / draws.std(0).clamp_min(torch.finfo(draws.dtype).tiny)
    pareto = None
    if with_pareto and ENGINE_COVARIANCES[settings.engine] and _count(weights) <= MOST_WEIGHTS:
        pareto = posterior_pareto_k(posterior, drawn, seed=seed_of(seed, 2))
    return rank_of(truth[0], draws, seed_of(seed, 3)), score.numpy(), pareto


def _quantities(program: AdapterModel, weights: Sites, task: Task) -> Tensor:
    """What is ranked, (S, Q), of S draws of the weights."""
    flat = torch.cat([value.flatten(1) for value in weights.values()], dim=1)
    probes = densities(program, weights, task.query_features.double(), task.query_labels).logits
    differences = (probes[..., 1:] - probes[..., :1]).flatten(1)
    fit_of = densities(program, weights, task.support_features.double(), task.support_labels)
    return torch.cat([flat[:, _ranked(flat.shape[1])], differences, fit_of.log_likelihood.sum(1)[:, None]], 1)


def _names(task: Task, weights: Sites) -> tuple[str, ...]:
    flat = [
        f"{name}[{','.join(map(str, index))}]"
        for name, value in weights.items()
        for index in np.ndindex(*value.shape)
    ]
    differences = [
        f"probe {row}: logit {other} − logit 0"
        for row in range(len(task.query_labels))
        for other in range(1, task.num_classes)
    ]
    return (*(flat[index] for index in _ranked(len(flat))), *differences, LIKELIHOOD)


def _ranked(count: int) -> list[int]:
    """The weights that are ranked: all of a few, else evenly spaced ones."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, MOST_RANKED))})


def _count(weights: Sites) -> int:
    return sum(value.numel() for value in weights.values())
