"""What each of two processes does in tests of the sharded filter."""

from __future__ import annotations

from pathlib import Path

import torch
from small_problems import SmallProblem, small_problem, tiny_task

from bayes_clip.data.task import Task
from bayes_clip.distributed import Place, fit_across, gathered, joined_processes
from bayes_clip.errors import UserError
from bayes_clip.gaussian import ClassBlock
from bayes_clip.gaussian.sharded import sharded_prior
from bayes_clip.inference.kalman import KalmanState
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.stream import run
from bayes_clip.observation import SOFTMAX, Gaussian, Observation
from bayes_clip.settings import FitSettings
from bayes_clip.shard import Shard
from bayes_clip.state_space import StateSpace

CLASSES = 5  # three on one process, two on the other
SETTINGS = FitSettings(dtype="float64", engine="ekf")
CASES = [
    *((rule, SOFTMAX, StateSpace()) for rule in RULES),
    ("expected", SOFTMAX, StateSpace(0.9)),
    ("plain", Gaussian(torch.tensor(0.5, dtype=torch.float64)), StateSpace()),
]


def task(**changes: object) -> Task:
    """A task of five classes."""
    return tiny_task(CLASSES, **changes)  # type: ignore[arg-type]


def both(folder: str) -> None:
    """Every case of the filter, a whole fit, and a fit that is refused; results go to `folder`."""
    with joined_processes("cpu") as place:
        _filters(Path(folder), place)
        fit_across(Path(folder, "posterior"), task(), SETTINGS, place)
        _refused(Path(folder), place)


def _filters(folder: Path, place: Place) -> None:
    problem = small_problem(CLASSES, 6, 20)
    shard = Shard(CLASSES, place.rank, place.processes)
    for number, (rule, observation, space) in enumerate(CASES):
        state = KalmanState(
            sharded_prior(problem.mean, problem.variance, shard), problem.mean, problem.variance
        )
        state, infos = run(state, parts(problem, observation), RULES[rule], space, observation=observation)
        covariance = gathered(state.belief.covariance, shard)  # type: ignore[attr-defined]
        moments = state.belief.logit_moments(problem.design)
        scores = torch.stack([step.prequential_score for step in infos])
        if covariance is not None:
            found = (state.belief.mean, covariance, *moments, scores)
            torch.save(found, folder / f"{number}.pt")


def alone(number: int) -> tuple[torch.Tensor, ...]:
    """The same case by one process."""
    rule, observation, space = CASES[number]
    problem = small_problem(CLASSES, 6, 20)
    prior = ClassBlock.from_prior(problem.mean, problem.variance)
    state = KalmanState(prior, problem.mean, problem.variance)
    state, infos = run(state, parts(problem, observation), RULES[rule], space, observation=observation)
    scores = torch.stack([step.prequential_score for step in infos])
    belief = state.belief
    return belief.mean, belief.covariance, *belief.logit_moments(problem.design), scores  # type: ignore[attr-defined]


def parts(problem: SmallProblem, observation: Observation) -> list[Batch]:
    """Batches of seven rows, seven, five, and a single one: fewer than there are processes."""
    one_hot = torch.eye(CLASSES, dtype=torch.float64)[problem.labels]
    labels = problem.labels if observation is SOFTMAX else one_hot
    sizes = [7, 7, 5, 1]
    return [
        Batch(rows, own) for rows, own in zip(problem.design.split(sizes), labels.split(sizes), strict=True)
    ]


def _refused(folder: Path, place: Place) -> None:
    """What the first process alone finds out is an error on both."""
    try:
        Shard(CLASSES, place.rank, place.processes).of_first(_refuse)
    except UserError as error:
        (folder / f"refused {place.rank}").write_text(str(error))


def _refuse() -> None:
    raise UserError("it is written to by another")
