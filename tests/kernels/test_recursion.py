"""The mode of one label, and the recursion against conditioning one row after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.special import softmax

from bayes_clip.gaussian.gram import BlockGram
from bayes_clip.inference.rules import RULES
from bayes_clip.kernels.recursion import mode_of_label, plain_step, recursion
from bayes_clip.observation import SOFTMAX


@settings(max_examples=200, deadline=None)
@given(
    seed=some.integers(0, 10**6),
    classes=some.integers(2, 40),
    spread=some.floats(-2, 2.3),
    smallest=some.floats(-14, 0),
    widest=some.floats(0, 4.5),
)
def test_the_mode_is_where_the_dual_is_the_residual(
    seed: int, classes: int, spread: float, smallest: float, widest: float
) -> None:
    """Variances over many orders of magnitude, zero among them; logits with a common offset."""
    generator = np.random.default_rng(seed)
    variance = 10 ** generator.uniform(smallest, widest, classes)
    variance[generator.integers(classes)] = 0
    mean = generator.normal(size=classes) * 10**spread + 25
    label = int(generator.integers(classes))
    dual, _ = mode_of_label(variance, mean, label)
    residual = -softmax(mean + variance * dual)
    residual[label] += 1
    assert np.abs(dual - residual).max() < 1e-9


@pytest.mark.parametrize("rule", ["plain", "iterated"])
@pytest.mark.parametrize("classes", [2, 7])
def test_one_label_is_the_rule_on_a_batch_of_one(rule: str, classes: int) -> None:
    generator = np.random.default_rng(classes)
    variance, mean = generator.uniform(0.1, 30, classes), generator.normal(size=classes) * 3
    step = mode_of_label if rule == "iterated" else plain_step
    dual, downdate = step(variance, mean, 1)
    gram = BlockGram(torch.from_numpy(variance)[:, None, None])
    change = RULES[rule](SOFTMAX, gram, torch.from_numpy(mean)[None], torch.tensor([1]), torch.tensor(1.0))
    assert np.abs(dual - change.dual[0].numpy()).max() < 1e-9
    assert np.abs(downdate - change.downdate[:, 0, 0].numpy()).max() < 1e-9


@pytest.mark.parametrize("count", [1, 7, 8, 9, 21])
@pytest.mark.parametrize("iterated", [True, False])
def test_a_block_is_its_rows_conditioned_on_one_after_another(count: int, iterated: bool) -> None:
    """The naive twin conditions the joint Gaussian of all rows' logits, class by class, on each row."""
    generator = torch.Generator().manual_seed(count)
    root = torch.randn(4, count, count + 2, generator=generator, dtype=torch.float64)
    gram, logits = root @ root.mT, torch.randn(count, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (count,), generator=generator)
    covariance, mean = gram.clone(), logits.clone()
    recursed = recursion(gram, logits, labels, iterated)
    step = mode_of_label if iterated else plain_step
    for row in range(count):
        own = covariance[:, row, row]
        assert torch.allclose(recursed.variance[row], own) and torch.allclose(
            recursed.predicted[row], mean[row]
        )
        found = step(own.numpy().copy(), mean[row].numpy().copy(), int(labels[row]))
        dual, weight = (torch.from_numpy(part) for part in found)
        column = covariance[:, :, row]
        mean = mean + (column * dual[:, None]).mT
        covariance = covariance - weight[:, None, None] * column[:, :, None] * column[:, None, :]
    dual, downdate = recursed.combined()
    assert torch.allclose(logits + torch.einsum("cij,jc->ic", gram, dual), mean, rtol=0, atol=1e-9)
    assert torch.allclose(gram - gram @ downdate @ gram, covariance, rtol=0, atol=1e-9)
