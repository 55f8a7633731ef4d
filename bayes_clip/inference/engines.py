"""One entrance to all engines: settings and labelled data in, what is known of the weights out.

Each engine also says what it would have said of left-out folds, from which the prior variance is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief, check_fits
from bayes_clip.gaussian.point import Point
from bayes_clip.inference import kalman
from bayes_clip.inference.batches import balanced_folds, batches
from bayes_clip.inference.feeding import Keeper, feed
from bayes_clip.inference.folds import MOST_FOLDS, FoldMoments, cavity_moments
from bayes_clip.inference.kalman import StepInfo
from bayes_clip.inference.laplace import laplace, laplace_of_program
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.mcmc import nuts
from bayes_clip.inference.mode import ModeProblem, find_mode, logits_of, mode_problem, rescaled, weights_of
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.program_logits import ProgramLogits, Weights
from bayes_clip.inference.program_mode import mode_of_program
from bayes_clip.inference.rules import find_rule
from bayes_clip.inference.stream import Stream, run
from bayes_clip.inference.variational import DRAFT_STEPS, STEPS, variational
from bayes_clip.model import AdapterModel
from bayes_clip.observation import SOFTMAX
from bayes_clip.settings import FitSettings
from bayes_clip.threads import one_thread

TUNING_TOLERANCE = 1e-8  # Newton decrement in nats: far below what folds can tell
REFIT_BELOW = 1_000_000  # weights times rows: up to here folds are really refitted
CLOSED_FORM_FAMILIES = ("", "class_block", "full")
MOST_REFITS = 2  # folds for engines without a closed form, at any size


@dataclass(frozen=True)
class Problem:
    """A model program at one prior variance with its labelled rows, in the fit's dtype and device."""

    build: Callable[[float], AdapterModel]  # prior variance -> program
    inputs: Tensor  # (N, F)
    labels: Tensor  # (N,)
    prior_variance: float

    @property
    def model(self) -> AdapterModel:
        """The program at this prior variance."""
        return self.build(self.prior_variance)

    @cached_property
    def program(self) -> Program:
        """The program as it reads: sites, prior, observation, logits."""
        return read_program(self.model, self.inputs)

    def at(self, prior_variance: float) -> Problem:
        """The same problem at another prior variance."""
        return replace(self, prior_variance=prior_variance)

    def rows(self, picked: Tensor) -> Problem:
        """The same problem with these rows alone."""
        return replace(self, inputs=self.inputs[picked], labels=self.labels[picked])


def infer(problem: Problem, settings: FitSettings, draft: bool = False) -> tuple[Weights, list[StepInfo]]:
    """Run the engine of `settings`; a `draft` takes fewer gradient steps. Infos are of the filter's batches.

    Raises:
        UserError: a covariance that does not fit, or options that exclude each other.
    """
    program = problem.program
    if settings.engine == "zero_shot":
        return Point(program.prior_mean), []
    if settings.engine == "vi":
        steps = DRAFT_STEPS if draft else STEPS
        data = (problem.inputs, problem.labels)
        return variational(problem.model, program, *data, settings.family, settings.seed, steps), []
    if settings.engine == "nuts":
        return nuts(problem.model, program, problem.inputs, problem.labels, settings.seed), []
    if settings.engine == "ekf":
        belief, _, infos = filtered(problem, settings)
        return belief, infos
    _check_memory(program, settings)
    if not has_closed_form(program):
        return _general_mode(problem, settings), []
    design = program.design(problem.inputs)
    solved = mode_problem(design, problem.labels, program.prior_mean, program.prior_variance)
    with one_thread(solved.design.numel() * len(solved.mean)):
        mode = weights_of(solved, find_mode(solved, dtype=settings.torch_dtype)).to(design)
    if settings.engine == "map":
        return Point(mode), []
    return laplace(settings.family, design, problem.labels, mode, program.prior_variance), []


def has_closed_form(program: Program) -> bool:
    """Whether it is a linear head under a softmax, for which modes and folds have formulas of their own."""
    return program.is_head and program.observation is SOFTMAX


def held_out(problem: Problem, settings: FitSettings) -> FoldMoments | None:
    """Prior variance -> moments of each support row's class logits without its fold; None at one shot.

    Small problems are refitted without each fold: there a fold is a large part of what is known, and the
    closed form, which keeps the other rows' sites, is too pessimistic. Larger ones take the closed form (map,
    laplace, and ekf by its class-block sites); what has none (vi, diagonal, programs that are no linear
    head) refits two folds.
    """
    folds = balanced_folds(problem.labels, MOST_FOLDS)
    if not folds:
        return None
    program = problem.program
    small = program.prior_mean.numel() * len(problem.labels) <= REFIT_BELOW
    closed = settings.engine != "vi" and settings.family in CLOSED_FORM_FAMILIES and has_closed_form(program)
    if small and closed:
        return _refitted(problem, settings, folds)
    if not closed:
        return _refitted(problem, settings, balanced_folds(problem.labels, MOST_REFITS))
    design = program.design(problem.inputs)
    prepared = mode_problem(design, problem.labels, program.prior_mean, program.prior_variance)
    if settings.engine == "ekf":
        return _filtered_folds(problem, prepared, settings, folds)
    return _mode_folds(problem, prepared, folds)


def filtered(
    problem: Problem, settings: FitSettings, keeper: Keeper | None = None
) -> tuple[Belief, Stream, list[StepInfo]]:
    """The filter over the labels: its belief, what it takes to add labels later, and the batches' infos.

    `keeper` keeps where it stands after every batch, and may say where to go on.

    Raises:
        UserError: a covariance that does not fit, or options that exclude each other.
    """
    program = problem.program
    _check_memory(program, settings)
    state = kalman.init(program.prior_mean, program.prior_variance, settings.family)
    return feed(
        state.belief,
        Stream(state.prior_mean, state.prior_variance, state.steps),
        problem.inputs,
        problem.labels,
        settings,
        classes=len(problem.model.class_names),
        program=program,
        keeper=keeper,
    )


def _general_mode(problem: Problem, settings: FitSettings) -> Point | Belief:
    program = problem.program
    targets = program.targets(problem.inputs, problem.labels)
    with one_thread(problem.inputs.numel() * program.outputs):
        mode = mode_of_program(program, problem.inputs, targets)
        if settings.engine == "map":
            return Point(mode)
        return laplace_of_program(settings.family, program, problem.inputs, mode)


def _mode_folds(whole: Problem, prepared: ModeProblem, folds: list[Tensor]) -> FoldMoments:
    """Folds of the mode: sites are the curvature p (1 − p) and residual y − p there."""
    start: Tensor | None = None

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        nonlocal start
        problem = rescaled(prepared, whole.at(prior_variance).program.prior_variance)
        with one_thread(problem.design.numel() * len(problem.mean)):
            start = find_mode(problem, start, torch.float32, TUNING_TOLERANCE)
        logits = logits_of(problem, start)
        probabilities = logits.softmax(-1)
        residual = SOFTMAX.target(problem.labels, logits) - probabilities
        own = probabilities * (1 - probabilities)
        return cavity_moments(problem.design, problem.variance, logits, own, residual, folds)

    return at


def _filtered_folds(
    whole: Problem, prepared: ModeProblem, settings: FitSettings, folds: list[Tensor]
) -> FoldMoments:
    """Folds of the filter: its own per-row sites, filtered in the span of the support set."""
    settings = replace(settings, covariance="class_block")
    order = batches(prepared.labels, len(prepared.mean), settings.order, settings.batch_size, settings.seed)
    rule, axes = find_rule(settings.update_rule), prepared.design.to(settings.torch_dtype)

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        problem = rescaled(prepared, whole.at(prior_variance).program.prior_variance)
        still = axes.new_zeros(len(problem.mean), axes.shape[1])
        state = kalman.init(still, problem.variance.expand_as(still).to(still), "class_block")
        data = [Batch(axes[rows], problem.labels[rows], problem.prior_logits[rows]) for rows in order]
        state, infos = run(state, data, rule, settings.state_space, settings.passes)
        rows = torch.cat(order)
        precision, linear = torch.empty_like(problem.prior_logits), torch.empty_like(problem.prior_logits)
        precision[rows] = torch.cat([info.change.curvature for info in infos])
        linear[rows] = torch.cat([info.change.linear for info in infos])
        logits = problem.prior_logits + problem.design @ state.belief.mean.double().mT
        residual = linear - precision * logits
        return cavity_moments(problem.design, problem.variance, logits, precision, residual, folds)

    return at


def _refitted(problem: Problem, settings: FitSettings, folds: list[Tensor]) -> FoldMoments:
    """Folds by fitting the rest: exact for what the engine does, and slower."""
    everything = torch.arange(len(problem.labels))

    def at(prior_variance: float) -> tuple[Tensor, Tensor]:
        classes = len(problem.model.class_names)
        mean = problem.inputs.new_empty(len(everything), classes)
        variance = torch.empty_like(mean)
        for fold in folds:
            kept = everything[~torch.isin(everything, fold)]
            part = problem.at(prior_variance).rows(kept)
            weights, _ = infer(part, settings, draft=True)
            logits = ProgramLogits(part.program, weights)
            mean[fold], variance[fold] = logits.logit_moments(problem.inputs[fold])
        return mean.double(), variance.double()

    return at


def _check_memory(program: Program, settings: FitSettings) -> None:
    if not settings.family:
        return
    classes, features = program.prior_mean.shape if program.is_head else (1, program.prior_mean.numel())
    # Laplace inverts the whole precision in float64, whatever it returns.
    whole = settings.engine == "laplace" and settings.family == "full"
    dtype = torch.float64 if whole else settings.torch_dtype
    check_fits(settings.family, classes, features, dtype, settings.device)
