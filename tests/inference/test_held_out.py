from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small_problems import assert_near, tiny_task
from torch import Tensor

from bayes_clip.fitting import fit
from bayes_clip.inference import held_out as module
from bayes_clip.inference import mode
from bayes_clip.inference.batches import balanced_folds, batches
from bayes_clip.inference.engines import Problem
from bayes_clip.inference.folds import MOST_FOLDS, cavity_moments, without_folds
from bayes_clip.inference.held_out import filtered_logits, held_out, searched
from bayes_clip.inference.mode import mode_problem
from bayes_clip.inference.rules import RULES, expected
from bayes_clip.model import context_of, find_model
from bayes_clip.settings import FitSettings
from bayes_clip.tuning import MOST_LOOKS


def problem_of(shots: int = 6, classes: int = 3, prior_variance: float = 1.0) -> Problem:
    task = tiny_task(shots=shots, classes=classes)
    context = context_of(task.text_features.double(), task.class_names, 5.0, task.num_features)
    kind = find_model("linear_probe")
    return Problem(kind, context, task.support_features.double(), task.support_labels, prior_variance)


@pytest.mark.parametrize(
    ("engine", "covariance"),
    [("map", None), ("laplace", None), ("ekf", None), ("laplace", "diagonal"), ("laplace", "kronecker")],
)
def test_closed_form_folds_are_close_to_refits(engine: str, covariance: str | None) -> None:
    """With a narrow prior a fold moves little, and what the closed forms leave out is of second order."""
    problem = problem_of()
    settings = FitSettings(engine=engine, covariance=covariance, dtype="float64", batch_size=18)
    refitted = module._refitted(problem, settings, balanced_folds(problem.labels, MOST_FOLDS))
    closed = held_out(problem, settings)
    assert closed is not None
    (mean, variance), (close_mean, close_variance) = refitted(1e-3), closed(1e-3)
    assert not torch.equal(mean, close_mean)
    torch.testing.assert_close(close_mean, mean, rtol=0, atol=2e-3)
    if engine != "map":  # a point estimate has no variance to refit
        torch.testing.assert_close(close_variance, variance, rtol=2e-2, atol=1e-5)


def test_large_folds_are_left_out_of_the_mode_and_not_of_the_covariance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem, settings = problem_of(), FitSettings(engine="laplace", dtype="float64")
    folds = held_out(problem, settings)
    assert folds is not None
    mean, variance = folds(1e-3)
    monkeypatch.setattr(module, "LARGEST_FOLD", 1)
    same_mean, close_variance = folds(1e-3)
    assert not torch.equal(variance, close_variance)
    torch.testing.assert_close(close_variance, variance, rtol=2e-2, atol=1e-5)
    torch.testing.assert_close(same_mean, mean, rtol=0, atol=2e-3)


def test_two_newton_steps_without_a_fold_end_at_the_refitted_mode() -> None:
    """Where the prior is wide enough for a fold to move logits by whole units."""
    problem, settings = problem_of(), FitSettings(engine="map", dtype="float64")
    exact = module._refitted(problem, settings, balanced_folds(problem.labels, MOST_FOLDS))(1.0)[0]
    folds = held_out(problem, settings)
    assert folds is not None
    prior = problem.program.prior_mean
    everything = mode_problem(
        problem.program.design(problem.inputs), problem.labels, prior, torch.ones_like(prior)
    )
    fitted = mode.logits_of(everything, mode.find_mode(everything))
    moved = (exact - fitted).norm()
    assert moved > 1
    assert (folds(1.0)[0] - exact).norm() < 0.1 * moved


@pytest.mark.parametrize("shape", ["one variance", "a variance for every weight"])
def test_the_filter_of_logits_is_the_filter_of_weights(shape: str) -> None:
    problem, settings = problem_of(), FitSettings(dtype="float64", batch_size=7)
    program = problem.at(0.05).program
    variance = program.prior_variance
    if shape != "one variance":
        variance = variance * torch.linspace(0.5, 2, variance.numel()).reshape(variance.shape)
    solved = mode_problem(program.design(problem.inputs), problem.labels, program.prior_mean, variance)
    order = batches(problem.labels, 3, "balanced", 7, seed=0)
    folds = balanced_folds(problem.labels, MOST_FOLDS)
    logits, precision, linear, blocks = filtered_logits(solved, order, expected, folds, torch.float64)
    wanted = module._filtered_weights(solved, order, expected, settings)
    for own, other in zip((logits, precision, linear), wanted, strict=True):
        assert_near(own, other, 1e-8)
    residual = linear - precision * logits
    cavities = without_folds(blocks, logits, precision, residual, folds)
    other = cavity_moments(solved.design, solved.variance, logits, precision, residual, folds)
    assert_near(cavities[0], other[0], 1e-8)
    assert_near(cavities[1], other[1], 1e-8)


def test_a_search_looks_at_whole_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(shots=6, classes=3)
    assert searched(problem) is problem
    for most, rows in ((17, 15), (9, 9), (2, 6)):  # at least two shots
        monkeypatch.setattr(module, "MOST_ROWS", most)
        few = searched(problem)
        assert torch.bincount(few.labels).tolist() == [rows // 3] * 3
        assert (few.inputs[:, None] == problem.inputs).all(-1).any(-1).all()


def test_at_one_shot_nothing_can_be_left_out() -> None:
    assert held_out(problem_of(shots=1), FitSettings()) is None


@pytest.mark.parametrize("rule", RULES)
def test_the_filter_is_run_once_for_every_prior_variance_tried(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And over no more rows than the fit: with the usual three looks the search is three fits at most."""
    rows = counted(monkeypatch, "filtered_logits", lambda problem, *_: len(problem.labels))
    task = tiny_task(features=12, shots=6)
    fitted = fit(task, FitSettings(rule=rule))
    assert len(rows) == len(fitted.tuned.profile) <= MOST_LOOKS
    assert set(rows) == {len(task.support_labels)}


def test_the_search_for_a_mode_costs_three_fits_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """In products with the design, forwards and back, those for all folds at once counted as one."""
    products: list[int] = []
    plain = mode._curvature_product

    def counting(*arguments: Tensor) -> Callable[[Tensor], Tensor]:
        product = plain(*arguments)

        def wrapped(direction: Tensor) -> Tensor:
            products.append(1)
            return product(direction)

        return wrapped

    monkeypatch.setattr(mode, "_curvature_product", counting)
    task = tiny_task(classes=5, features=24, shots=8)
    chosen = fit(task, FitSettings(engine="map")).tuned
    both = len(products)
    products.clear()
    fit(task, FitSettings(engine="map", prior_variance=chosen.prior_variance))
    assert len(chosen.profile) == 3
    assert both - len(products) <= 3 * len(products)


@pytest.mark.parametrize("engine", ["map", "laplace", "ekf"])
def test_a_fit_that_chose_is_the_fit_at_the_variance_chosen(engine: str) -> None:
    task = tiny_task(shots=6)
    chosen = fit(task, FitSettings(engine=engine))
    given = fit(task, FitSettings(engine=engine, prior_variance=chosen.tuned.prior_variance))
    assert chosen.tuned.covariance_scale == given.tuned.covariance_scale
    for name, value in vars(chosen.posterior.weights).items():
        assert torch.equal(getattr(given.posterior.weights, name), value), name


def counted(monkeypatch: pytest.MonkeyPatch, name: str, count: Callable[..., int]) -> list[int]:
    """Counts of the calls of a function of the module."""
    seen: list[int] = []
    plain = getattr(module, name)

    def counting(*arguments):
        seen.append(count(*arguments))
        return plain(*arguments)

    monkeypatch.setattr(module, name, counting)
    return seen
