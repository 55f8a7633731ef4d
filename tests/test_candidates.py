"""Conditioning on rows without labels: against naive numpy, explicit updates, and the filter itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_problems import assert_near, tiny_task
from torch import Tensor

import bayes_clip as bc
from bayes_clip.candidates import CURVATURE_DRAWS, SPREAD, BeliefCandidates, BlockCandidates, candidates_of
from bayes_clip.gaussian import ClassBlock
from bayes_clip.observation import SOFTMAX, fixed_noise

SETTINGS = bc.FitSettings(prior_variance=0.3, dtype="float64", predictive="plug_in")


def fitted(covariance: str = "class_block", **changes: object) -> tuple[bc.Posterior, Tensor]:
    task = tiny_task(classes=3, shots=2)
    settings = replace(SETTINGS, covariance=covariance, **changes)
    posterior = bc.fit(task, settings).posterior
    return posterior, posterior.as_inputs(task.query_features[::4])


def naive_update(mean: np.ndarray, covariance: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Covariance blocks (C, D, D) after one row φ: P − P φ φᵀ P · s w / (1 + s w φᵀ P φ), class by class."""
    variance = np.einsum("d,cde,e->c", row, covariance, row)
    noise = fixed_noise(CURVATURE_DRAWS, torch.zeros(1, len(mean), dtype=torch.float64)).numpy()[:, 0]
    logits = mean @ row + np.sqrt(SPREAD * variance) * noise
    weight = np.exp(logits - logits.max(1, keepdims=True))
    p = weight / weight.sum(1, keepdims=True)
    site = SPREAD * (p * (1 - p)).mean(0)
    gain = site / (1 + site * variance)
    seen = covariance @ row
    return covariance - gain[:, None, None] * seen[:, :, None] * seen[:, None, :]


def test_picks_equal_naive_updates() -> None:
    posterior, inputs = fitted()
    belief = posterior.weights
    assert isinstance(belief, ClassBlock)
    design = posterior.logits.program.design(inputs)
    mean, covariance = belief.mean.numpy(), belief.covariance.numpy()
    candidates = candidates_of(posterior, inputs)
    assert isinstance(candidates, BlockCandidates)
    for index in (3, 0, 3, 7):
        covariance = naive_update(mean, covariance, design[index].numpy())
        candidates = candidates.given(index)
        wanted = np.einsum("nd,cde,ne->nc", design.numpy(), covariance, design.numpy())
        assert_near(candidates.logits().variance, torch.from_numpy(wanted))
        assert_near(candidates.logits().mean, design @ belief.mean.mT)


def test_blocks_are_a_shorter_way_to_updates_of_the_belief() -> None:
    posterior, inputs = fitted()
    short = candidates_of(posterior, inputs)
    design = posterior.logits.program.design(inputs)
    long = BeliefCandidates(posterior.weights, design, None, posterior.logits.program.observation)  # type: ignore[arg-type]
    for index in (1, 4, 2):
        short, long = short.given(index), long.given(index)
        assert_near(short.logits().variance, long.logits().variance)


@pytest.mark.parametrize("covariance", ["full", "kronecker", "low_rank", "diagonal", "diagonal_variational"])
def test_every_covariance_gets_surer_of_the_row_it_is_told_of(covariance: str) -> None:
    posterior, inputs = fitted(covariance)
    candidates = candidates_of(posterior, inputs)
    before = candidates.logits()
    after = candidates.given(2).logits()
    if covariance != "kronecker":  # its projection may move what it cannot keep to other rows
        assert (after.variance <= before.variance * (1 + 1e-9)).all()
    assert (after.variance[2] < before.variance[2]).all()
    assert_near(after.mean, before.mean)


def test_full_covariance_takes_the_coupled_curvature() -> None:
    posterior, inputs = fitted("full")
    belief = posterior.weights
    design = posterior.logits.program.design(inputs)
    jacobian = torch.block_diag(*[design[1:2]] * 3)  # (C, C D)
    gram = jacobian @ belief.covariance @ jacobian.mT  # type: ignore[union-attr]
    values, vectors = torch.linalg.eigh(gram)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.mT
    noise = fixed_noise(CURVATURE_DRAWS, torch.zeros(1, 3, dtype=torch.float64))[:, 0]
    p = (design[1] @ belief.mean.mT + SPREAD**0.5 * noise @ root.mT).softmax(-1)
    site = SPREAD * SOFTMAX.curvature(p.log()).dense().mean(0)
    seen = belief.covariance @ jacobian.mT  # type: ignore[union-attr]
    wanted = belief.covariance - seen @ torch.linalg.solve(torch.eye(3) + site @ gram, site) @ seen.mT  # type: ignore[union-attr]
    after = candidates_of(posterior, inputs).given(1)
    assert isinstance(after, BeliefCandidates)
    assert_near(after.belief.covariance, wanted)  # type: ignore[attr-defined]


def test_the_covariance_after_a_label_does_not_depend_on_it() -> None:
    """One update by the rule `plain`, whose curvature is that of the prediction, for each label."""
    task = tiny_task(classes=3, shots=2)
    settings = replace(SETTINGS, rule="plain")
    posterior = bc.fit(task, settings).posterior
    after = []
    for label in range(3):
        row, names = task.query_features[:1], task.class_names
        one = bc.make_task("one", row, [label], class_names=names, partial=True, logit_scale=20)
        after.append(bc.update(posterior, one).posterior.weights.covariance)
    assert_near(after[1], after[0])
    assert_near(after[2], after[0])
