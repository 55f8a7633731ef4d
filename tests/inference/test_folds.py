from __future__ import annotations

import torch
from naive_twins import mode_and_covariance
from small_problems import SmallProblem, assert_near, small_problem
from torch import Tensor

from bayes_clip.inference.folds import cavity_moments


def gaussian_posterior(
    problem: SmallProblem, precision: Tensor, linear: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) of all rows' logits given the diagonal sites of the rows `kept` alone."""
    means, variances = [], []
    for index in range(len(problem.mean)):
        design, weight = problem.design[kept], precision[kept, index]
        information = torch.diag(1 / problem.variance[index]) + design.mT @ torch.diag(weight) @ design
        covariance = torch.linalg.inv(information)
        shift = design.mT @ linear[kept, index] + problem.mean[index] / problem.variance[index]
        means.append(problem.design @ covariance @ shift)
        variances.append((problem.design @ covariance @ problem.design.mT).diagonal())
    return torch.stack(means, -1), torch.stack(variances, -1)


def sites(problem: SmallProblem) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    shape = problem.logits.shape
    precision = torch.rand(shape, generator=generator, dtype=torch.float64)
    return precision, torch.randn(shape, generator=generator, dtype=torch.float64)


def test_taking_folds_out_is_refitting_without_them() -> None:
    problem = small_problem(rows=12)
    precision, linear = sites(problem)
    everything = torch.arange(12)
    logits, _ = gaussian_posterior(problem, precision, linear, everything)
    folds = [everything[everything % 3 == fold] for fold in range(3)]
    mean, variance = cavity_moments(
        problem.design, problem.variance, logits, precision, linear - precision * logits, folds
    )
    for fold in folds:
        kept = everything[~torch.isin(everything, fold)]
        wanted_mean, wanted_variance = gaussian_posterior(problem, precision, linear, kept)
        assert_near(mean[fold], wanted_mean[fold])
        assert_near(variance[fold], wanted_variance[fold])


def test_one_row_folds_are_the_leave_one_out_formula() -> None:
    """z₋ = z − v r / (1 − w v) and v₋ = v / (1 − w v), with v the row's posterior logit variance."""
    problem = small_problem(rows=8)
    precision, linear = sites(problem)
    logits, variance = gaussian_posterior(problem, precision, linear, torch.arange(8))
    residual = linear - precision * logits
    mean, left_out = cavity_moments(
        problem.design, problem.variance, logits, precision, residual, list(torch.arange(8).split(1))
    )
    assert_near(mean, logits - variance * residual / (1 - precision * variance))
    assert_near(left_out, variance / (1 - precision * variance))


def test_one_variance_for_all_features_of_a_class_may_be_given() -> None:
    problem = small_problem(rows=8, isotropic=True)
    precision, linear = sites(problem)
    folds = list(torch.arange(8).split(4))
    arguments = (problem.logits, precision, linear, folds)
    short = cavity_moments(problem.design, problem.variance[:, :1], *arguments)
    long = cavity_moments(problem.design, problem.variance, *arguments)
    assert_near(short[0], long[0])
    assert_near(short[1], long[1])


def test_cavity_of_the_mode_is_nearly_the_refitted_mode_where_the_prior_is_narrow() -> None:
    """One Newton step without the coupling: what it misses is of second order in the prior variance."""
    errors = []
    for variance in (1e-3, 1e-4):
        problem = small_problem(rows=12, variance=variance, isotropic=True)
        mode, _ = mode_and_covariance(problem)
        logits = problem.design @ mode.mT
        probabilities = logits.softmax(-1)
        residual = torch.eye(3, dtype=torch.float64)[problem.labels] - probabilities
        fold, kept = torch.arange(0, 6), torch.arange(6, 12)
        mean, _ = cavity_moments(
            problem.design,
            problem.variance,
            logits,
            probabilities * (1 - probabilities),
            residual,
            [fold, kept],
        )
        refitted, _ = mode_and_covariance(problem.rows(kept))
        wanted = problem.design[fold] @ refitted.mT
        moved = float((wanted - logits[fold]).abs().max())
        errors.append(float((mean[fold] - wanted).abs().max()) / moved)
    assert errors[0] < 0.02
    assert errors[1] < 0.15 * errors[0]
