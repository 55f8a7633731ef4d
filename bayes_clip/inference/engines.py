"""One entrance to all engines: settings and labelled data in, what is known of the weights out.

Each engine also says what it would have said of left-out folds, from which the prior variance is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bayes_clip.gaussian import Belief, check_fits
from bayes_clip.gaussian.point import Point
from bayes_clip.gaussian.sharded import sharded_prior
from bayes_clip.inference import kalman
from bayes_clip.inference.feeding import Keeper, feed
from bayes_clip.inference.kalman import StepInfo
from bayes_clip.inference.laplace import laplace, laplace_of_program
from bayes_clip.inference.mcmc import nuts
from bayes_clip.inference.mode import find_mode, mode_problem, weights_of
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.program_logits import Weights
from bayes_clip.inference.program_mode import mode_of_program
from bayes_clip.inference.sgd import Views, trained
from bayes_clip.inference.stream import Stream
from bayes_clip.inference.variational import DRAFT_STEPS, STEPS, variational
from bayes_clip.model import AdapterModel, Context, Support
from bayes_clip.observation import SOFTMAX
from bayes_clip.settings import FitSettings
from bayes_clip.shard import Shard
from bayes_clip.threads import one_thread


@dataclass(frozen=True)
class Problem:
    """A model program at one prior variance with its labelled rows, in the fit's dtype and device."""

    kind: type[AdapterModel]
    context: Context
    inputs: Tensor  # (N, F)
    labels: Tensor  # (N,)
    prior_variance: float
    views: Views | None = None  # what each epoch of `sgd` sees; None: the inputs

    @property
    def model(self) -> AdapterModel:
        """The program at this prior variance; if it keeps labelled rows, these ones."""
        support = Support(self.inputs, self.labels) if self.kind.uses_support else None
        return self.kind(replace(self.context, support=support), self.prior_variance)

    @cached_property
    def program(self) -> Program:
        """The program as it reads: sites, prior, observation, logits."""
        return read_program(self.model, self.inputs)

    def at(self, prior_variance: float) -> Problem:
        """The same problem at another prior variance."""
        return replace(self, prior_variance=prior_variance)

    def rows(self, picked: Tensor) -> Problem:
        """The same problem with these rows alone."""
        return replace(self, inputs=self.inputs[picked], labels=self.labels[picked], views=None)


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
    if settings.engine == "sgd":
        views = problem.views or (lambda epoch: problem.inputs)
        return trained(problem.model, program, views, problem.labels, settings.seed), []
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


def filtered(
    problem: Problem, settings: FitSettings, keeper: Keeper | None = None, shard: Shard | None = None
) -> tuple[Belief, Stream, list[StepInfo]]:
    """The filter over the labels: its belief, what it takes to add labels later, and the batches' infos.

    `keeper` keeps where it stands after every batch, and may say where to go on. With a `shard`, for linear
    heads, the belief holds the covariance of this process's classes alone (`ShardedClassBlock`), and every
    process must call.

    Raises:
        UserError: a covariance that does not fit, or options that exclude each other.
    """
    program = problem.program
    _check_memory(program, settings, shard)
    prior = program.prior_mean, program.prior_variance
    belief = kalman.init(*prior, settings.family).belief if shard is None else sharded_prior(*prior, shard)
    return feed(
        belief,
        Stream(*prior, steps=0),
        problem.inputs,
        problem.labels,
        settings,
        classes=len(problem.model.class_names),
        program=program,
        keeper=keeper,
        consume=True,
    )


def _general_mode(problem: Problem, settings: FitSettings) -> Point | Belief:
    program = problem.program
    targets = program.targets(problem.inputs, problem.labels)
    with one_thread(problem.inputs.numel() * program.outputs):
        mode = mode_of_program(program, problem.inputs, targets)
        if settings.engine == "map":
            return Point(mode)
        return laplace_of_program(settings.family, program, problem.inputs, mode)


def _check_memory(program: Program, settings: FitSettings, shard: Shard | None = None) -> None:
    if not settings.family:
        return
    classes, features = program.prior_mean.shape if program.is_head else (1, program.prior_mean.numel())
    if shard is not None:
        classes = shard.sizes[shard.rank]
    # Laplace inverts the whole precision in float64, whatever it returns.
    whole = settings.engine == "laplace" and settings.family == "full"
    dtype = torch.float64 if whole else settings.torch_dtype
    check_fits(settings.family, classes, features, dtype, settings.device)
