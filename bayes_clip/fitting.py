"""From a task and settings to a posterior: choose the prior variance, run the engine, wrap the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from bayes_clip.data.task import Task, refuse_partial
from bayes_clip.errors import UserError
from bayes_clip.inference import NO_PRIOR
from bayes_clip.inference.drift import Drift, estimate_process_noise
from bayes_clip.inference.engines import Problem, filtered, infer
from bayes_clip.inference.held_out import held_out, searched
from bayes_clip.inference.kalman import StepInfo
from bayes_clip.inference.program import require_head
from bayes_clip.inference.program_logits import Weights
from bayes_clip.inference.stream import Stream
from bayes_clip.model import AdapterModel, as_program, find_model
from bayes_clip.posterior import Posterior, Source
from bayes_clip.precision import full_precision
from bayes_clip.problem import problem_of, with_covariance
from bayes_clip.runnable import why_not
from bayes_clip.settings import FitSettings
from bayes_clip.shard import Shard
from bayes_clip.storage.checkpoint import Checkpoints
from bayes_clip.tuning import Tuned, choose, choose_scale, default_variance
from bayes_clip.views import deviations

__all__ = ["Fit", "FitSettings", "fit"]


@dataclass(frozen=True)
class Fit:
    """A posterior and how it came about."""

    posterior: Posterior
    tuned: Tuned
    steps: tuple[StepInfo, ...]  # one per batch for the filter, else empty
    seconds: float  # choosing the prior variance included
    drift: Drift | None = None  # how the process noise was chosen, where it was
    deviations: tuple[str, ...] = ()  # of a training by recipe, from what its authors did

    @property
    def info(self) -> dict[str, float]:
        """Prior variance, covariance scale, seconds, and for a filter its two scores in nats.

        The scores are those of a first pass: in a later one the other batches have spoken already. The rule
        kalman_clip has none: it scores cosines, not labels.
        """
        numbers = {
            "prior_variance": self.tuned.prior_variance,
            "covariance_scale": self.tuned.covariance_scale,
            "seconds": self.seconds,
        }
        settings = self.posterior.source.settings
        if self.steps and settings.passes == 1 and settings.update_rule != "kalman_clip":
            numbers["prequential_score"] = float(sum(step.prequential_score for step in self.steps))
            numbers["log_evidence"] = float(sum(step.change.log_evidence for step in self.steps))
            numbers["nis"] = float(sum(step.nis for step in self.steps))
            numbers["degrees_of_freedom"] = float(sum(step.degrees_of_freedom for step in self.steps))
        if self.drift is not None:
            numbers["process_noise"] = self.drift.process_noise
        return numbers

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should be told of how it was fitted."""
        if self.deviations:
            name = self.posterior.source.settings.model
            return (f"{name} is trained as published but for: {'; '.join(self.deviations)}",)
        if self.drift is None:
            return ()
        static, chosen = self.drift.profile[0], self.drift.process_noise
        best = max(self.drift.profile, key=lambda tried: tried.prequential_score)
        gain = best.prequential_score - static.prequential_score
        return (
            f"process noise {chosen:.3g} x prior variance a batch, by prequential score ({gain:+.1f} nats)",
        )

    def __repr__(self) -> str:
        return f"Fit({self.posterior!r}, {self.seconds:.2f} s)"


@torch.no_grad()
@full_precision()
def fit(
    task: Task,
    settings: FitSettings | None = None,
    checkpoints: Checkpoints | None = None,
    program: type[AdapterModel] | Callable[..., Tensor] | None = None,
    shard: Shard | None = None,
) -> Fit:
    """Fit one model program under one engine to the support set of `task`.

    `checkpoints` keeps where the filter stands, and may have it go on where an earlier process stopped. A fit
    that went on reports no steps: it did not see the earlier batches. `program`: a plain Pyro function
    ``model(inputs, labels=None)``, or a subclass of AdapterModel, instead of the one that `settings.model`
    names. `shard`: which classes' covariance this process holds; see `distributed`.

    Raises:
        UserError: zero_shot without text features, a covariance that does not fit or needs a linear head, a
            program that cannot be filtered (by site and reason), an unknown name, a partial task, or
            checkpoints for another engine than ekf.
    """
    settings = settings or FitSettings()
    kind = find_model(settings.model) if program is None else as_program(program)
    if program is not None:
        settings = replace(settings, model=kind.__name__)
    refuse_partial(task)
    if checkpoints is not None and settings.engine != "ekf":
        raise UserError(f"{settings.engine} keeps no checkpoints; leave out --resume and --checkpoint-every")
    refusal = why_not(kind, settings.model, settings.engine, task)
    if refusal is not None:
        raise UserError(refusal)
    start = time.perf_counter()
    problem, logit_variance = problem_of(task, settings, kind)
    settings = with_covariance(settings, problem.program)
    if shard is not None:
        require_head(problem.program, "--distributed")
    tuned = None if checkpoints is None else checkpoints.tuned
    if tuned is None:
        chosen = partial(_tune, problem, settings, logit_variance, task.text_features is not None)
        tuned = chosen() if shard is None else shard.of_first(chosen)
        if checkpoints is not None:
            checkpoints.keep_tuned(tuned)
    problem = problem.at(tuned.prior_variance)
    drift = None
    if settings.engine == "ekf" and settings.chooses_noise:
        drift = None if checkpoints is None else checkpoints.drift
        if drift is None:
            drift = _drift(problem, settings, shard)
            if checkpoints is not None:
                checkpoints.keep_drift(drift)
        settings = replace(settings, process_noise=drift.process_noise)
    weights, stream, steps = _learn(problem, settings, checkpoints, shard)
    source = Source(
        settings=settings,
        task=task.name,
        backbone=task.backbone,
        shots=task.shots,
        seed=task.seed,
        support_rows=len(task.support_labels),
        prior_variance=tuned.prior_variance,
        covariance_scale=tuned.covariance_scale,
        label_counts=_counts(task, settings),
    )
    posterior = Posterior(problem.model, weights, source, stream)
    seconds = time.perf_counter() - start
    strayed = deviations(kind, task, problem.views) if settings.engine == "sgd" else ()
    return Fit(posterior, tuned, tuple(steps), seconds, drift, strayed)


def _counts(task: Task, settings: FitSettings) -> tuple[int, ...]:
    """Labels of every class, where predictions are to take their frequencies out; zero_shot learned none."""
    if settings.class_prior != "even" or settings.engine == "zero_shot":
        return ()
    return tuple(torch.bincount(task.support_labels, minlength=task.num_classes).tolist())


@torch.no_grad()
@full_precision()
def left_out_logits(task: Task, settings: FitSettings) -> Tensor | None:
    """Logits (N, C), float64, of every support row by a fit without its fold, at its most probable weights.

    The prior variance is chosen as `fit` does, and nothing is fitted to all rows but what the folds need.
    None where every class has a single row.

    Raises:
        UserError: as `fit`.
    """
    refuse_partial(task)
    problem, logit_variance = problem_of(task, settings, find_model(settings.model))
    settings = with_covariance(settings, problem.program)
    tuned = _tune(problem, settings, logit_variance, task.text_features is not None)
    folds = held_out(problem, settings)
    return None if folds is None else folds(tuned.prior_variance)[0].double().cpu()


def _drift(problem: Problem, settings: FitSettings, shard: Shard | None) -> Drift:
    """The process noise under which the filter predicts the labels best, each before it is learned."""

    def scored(noise: float) -> list[StepInfo]:
        return filtered(problem, replace(settings, process_noise=noise), shard=shard)[2]

    return estimate_process_noise(scored)


def _learn(
    problem: Problem, settings: FitSettings, checkpoints: Checkpoints | None, shard: Shard | None
) -> tuple[Weights, Stream | None, list[StepInfo]]:
    """The engine's weights, what it takes to add labels to them (ekf alone), and the filter's infos."""
    if settings.engine != "ekf":
        weights, steps = infer(problem, settings)
        return weights, None, steps
    try:
        belief, stream, steps = filtered(problem, settings, checkpoints, shard)
        broken = not belief.mean.isfinite().all()
    except torch.linalg.LinAlgError:
        broken = True
    if broken:
        raise UserError("the filter broke down (rounding, or a prior far too wide); try --dtype float64")
    return belief, stream, [] if checkpoints is not None and checkpoints.resumed else steps


def _tune(problem: Problem, settings: FitSettings, logit_variance: float, has_text: bool) -> Tuned:
    """Prior variance (unless it is given) and covariance scale, from balanced folds of the support set."""
    engine = settings.engine
    given = settings.prior_variance
    tunes, widest = problem.kind.tunes_prior, problem.kind.widest_prior
    if not tunes:
        if given is not None:
            raise UserError(
                f"--prior-variance {given:g}: {problem.program.name} writes its own prior; change it there"
            )
        given = 1.0
    kind = settings.update_rule if engine == "ekf" else "vi" if engine in ("vi", "nuts") else engine
    if engine in NO_PRIOR:
        # a program without a slope at its prior mean (clip_adapter) has no variance to go by
        usual = default_variance("map", logit_variance, has_text) if logit_variance > 0 else 1.0
        return Tuned(given or min(usual, widest), 0.0)
    centre = min(default_variance(kind, logit_variance, has_text) if tunes else 1.0, widest)
    problem = searched(problem)
    folds = held_out(problem, settings) if engine != "nuts" else None
    if folds is None:
        return Tuned(given or centre, 0.0)
    labels = problem.labels
    wants_scale = engine != "map" and settings.predictive == "auto"
    if given is not None:
        return choose_scale(folds, labels, given) if wants_scale else Tuned(given, 0.0)
    # where the program bears no more, the search is centred there, and its range moves along
    logit_variance = max(logit_variance, default_variance(kind, 1.0, has_text) / centre)
    return choose(folds, labels, centre, logit_variance, scales=wants_scale, widest=widest)
