from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from small_problems import assert_near, small_problem
from torch import Tensor

from bayes_clip.evaluation import consistency as module
from bayes_clip.evaluation.consistency import (
    DRAWS,
    OVERSHOOTS,
    SLUGGISH,
    Innovation,
    consistency,
    dense,
    gaussian_innovation,
    label_innovation,
)
from bayes_clip.evaluation.filter_checks import gaussian_consistency, label_consistency
from bayes_clip.evaluation.simulated import small_task
from bayes_clip.gaussian import FAMILIES, Full
from bayes_clip.gaussian.gram import DenseGram
from bayes_clip.settings import FitSettings

PROBLEM = small_problem(rows=4)


def naive_spread(covariance: Tensor, design: Tensor) -> Tensor:
    """Covariance of logits listed classes outermost, by stacking the whole Jacobian."""
    classes = len(covariance) // design.shape[1]
    jacobian = torch.block_diag(*[design] * classes)
    return jacobian @ covariance @ jacobian.mT


@pytest.mark.parametrize("family", ["full", "class_block", "diagonal"])
def test_every_family_s_gram_is_made_dense_the_same_way(family: str) -> None:
    belief = FAMILIES[family].from_prior(PROBLEM.mean, PROBLEM.variance)
    seen = belief.project(PROBLEM.design)
    assert_near(
        dense(seen.gram, seen.logits), naive_spread(torch.diag(PROBLEM.variance.flatten()), PROBLEM.design)
    )


def test_the_gaussian_statistic_is_the_dense_quadratic_form() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(15, 15, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT
    seen = Full(PROBLEM.mean, covariance).project(PROBLEM.design)
    values = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    found = gaussian_innovation(seen.logits, seen.gram, PROBLEM.design, values, 0.3)
    excess = (values - PROBLEM.design @ PROBLEM.mean.mT).mT.flatten()
    spread = naive_spread(covariance, PROBLEM.design) + 0.3 * torch.eye(12, dtype=torch.float64)
    wanted = float(excess @ torch.linalg.inv(spread) @ excess)
    assert found.nis == pytest.approx(wanted, rel=1e-9) and found.degrees_of_freedom == 12
    assert found.nis_rank == int(chi2.cdf(wanted, 12) * 200)
    assert_near(found.pulled, ((values - seen.logits).mT @ PROBLEM.design).flatten())


def certain(logits: Tensor) -> DenseGram:
    return DenseGram(torch.zeros(logits.numel(), logits.numel(), dtype=torch.float64), logits.shape[1])


def test_labels_under_certain_logits_have_the_plain_transform_and_pearson_statistic() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    probabilities = logits.softmax(-1)
    labels, design = torch.tensor([0, 2, 1, 1, 2]), torch.randn(5, 2, dtype=torch.float64)
    found = label_innovation(logits, certain(logits), design, labels, seed=0)
    picked = probabilities[range(5), labels]
    assert found.nis == pytest.approx(float((1 / picked - 1).sum()), rel=1e-9)
    curvature = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    excess = torch.nn.functional.one_hot(labels, 3).double() - probabilities
    pseudo = torch.einsum("bi,bij,bj->", excess, torch.linalg.pinv(curvature, hermitian=True), excess)
    assert found.nis == pytest.approx(float(pseudo), rel=1e-9)
    above = probabilities.cumsum(-1)[range(5), labels].numpy()
    assert ((found.transforms <= above + 1e-12) & (found.transforms >= above - picked.numpy() - 1e-12)).all()
    assert_near(found.pulled, (excess.mT @ design).flatten())


def test_a_transform_is_conditional_on_the_rows_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows with the same uncertain logits: the first label says what the second will be."""
    monkeypatch.setattr(module, "LOGIT_DRAWS", 100_000)
    variance = 9.0
    matrix = torch.block_diag(*[variance * torch.ones(2, 2, dtype=torch.float64)] * 2)
    logits = torch.zeros(2, 2, dtype=torch.float64)
    found = label_innovation(logits, DenseGram(matrix, 2), torch.ones(2, 1).double(), torch.tensor([1, 1]), 3)
    difference = torch.linspace(-8, 8, 4001, dtype=torch.float64) * (2 * variance) ** 0.5
    weight = (-(difference**2) / (4 * variance)).exp()
    weight = weight / weight.sum()
    both = float((weight * difference.sigmoid() ** 2).sum())
    given = both / 0.5  # p(second = 1 | first = 1)
    assert 1 - given - 0.01 <= found.transforms[1] <= 1
    spread = [
        label_innovation(logits, DenseGram(matrix, 2), torch.ones(2, 1).double(), torch.tensor([1, 0]), seed)
        for seed in range(40)
    ]
    assert max(each.transforms[1] for each in spread) == pytest.approx(1 - given, abs=0.02)


def streams(pull: float = 0.0, narrow: float = 1.0, seed: int = 0) -> list[list[Innovation]]:
    """Innovations of an invented filter: exact, too sure of itself, or one whose innovations repeat."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(80):
        stream, before = [], np.zeros(4)
        for _ in range(5):
            excess = pull * before + generator.normal(size=4)
            before = excess
            nis = float(narrow * np.square(excess).sum())
            rank = min(int(chi2.cdf(nis, 4) * 200), DRAWS)
            stream.append(Innovation(nis, 4, rank, generator.uniform(size=3), torch.from_numpy(excess)))
        found.append(stream)
    return found


def test_verdicts_on_invented_filters() -> None:
    assert consistency(streams()).verdict == "passes"
    assert consistency(streams(narrow=1.6)).verdict == "too narrow"
    assert consistency(streams(narrow=0.6)).verdict == "too wide"
    repeating, alternating = consistency(streams(pull=0.25)), consistency(streams(pull=-0.25))
    assert repeating.whiteness > 3 and repeating.verdict == SLUGGISH
    assert alternating.whiteness < -3 and alternating.verdict == OVERSHOOTS
    assert consistency(streams()).nis_ratio == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("covariance", ["full", "class_block"])
def test_filters_of_gaussian_observations_are_exact(covariance: str) -> None:
    settings = FitSettings(engine="ekf", covariance=covariance, rule="plain", batch_size=6)
    found = gaussian_consistency(small_task(), settings, 10.0, 40)
    assert found.verdict == "passes" and found.batches == 200
    assert found.nis_ratio == pytest.approx(1, abs=4 * (2 / (200 * 18)) ** 0.5)


def test_the_textbook_filter_is_caught_where_the_prior_is_wide_and_passes_where_it_is_narrow() -> None:
    settings = FitSettings(engine="ekf", covariance="full", rule="plain", batch_size=6)
    assert label_consistency(small_task(), settings, 0.1, 20).verdict == "passes"
    wide = label_consistency(small_task(), settings, 100.0, 20)
    assert wide.verdict == "too narrow" and wide.nis_ratio > 10
