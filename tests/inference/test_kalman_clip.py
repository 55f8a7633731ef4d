from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2
from small_problems import SmallProblem, assert_near, small_problem, tiny_task
from torch import Tensor

import bayes_clip as bc
from bayes_clip.errors import UserError
from bayes_clip.gaussian import Diagonal
from bayes_clip.inference import kalman, kalman_clip
from bayes_clip.inference.kalman import KalmanState
from bayes_clip.inference.linearised import Batch
from bayes_clip.inference.rules import RULES, find_rule
from bayes_clip.inference.stream import run
from bayes_clip.state_space import StateSpace
from bayes_clip.streaming import Pace

PROBLEM = small_problem(classes=3, features=4, rows=8)


def start(problem: SmallProblem = PROBLEM) -> KalmanState:
    unit = torch.nn.functional.normalize(problem.mean, dim=-1)
    return kalman.init(unit, problem.variance, "diagonal")


def naive_step(
    mean: Tensor, variance: Tensor, noise: float | None, rows: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, float]:
    """One batch with autograd's Jacobian, a dense innovation covariance and a loop over the pairs."""

    def cosines(flat: Tensor) -> Tensor:
        own = flat.reshape(mean.shape)[labels]
        return torch.nn.functional.cosine_similarity(rows, own, dim=-1)

    flat, spread = mean.reshape(-1), torch.diag(variance.reshape(-1))
    jacobian = torch.func.jacrev(cosines)(flat)
    innovation = 1 - cosines(flat)
    mean_square = float(innovation.square().mean())
    noise = mean_square if noise is None else 0.9 * noise + 0.1 * mean_square
    signal = jacobian @ spread @ jacobian.mT
    kept = []
    for index, surprise in enumerate(innovation):
        distance = float(surprise**2 / (signal[index, index] + noise))
        inflated = float(surprise**2) / chi2.ppf(0.99, 1) - float(signal[index, index])
        kept.append(inflated if distance > chi2.ppf(0.99, 1) else noise)
    gain = spread @ jacobian.mT @ torch.linalg.inv(signal + torch.diag(torch.tensor(kept).double()))
    moved = (flat + gain @ innovation).reshape(mean.shape)
    narrowed = (spread - gain @ jacobian @ spread).diagonal().reshape(mean.shape)
    return torch.stack([row / row.norm() for row in moved]), narrowed, noise


def test_steps_are_the_dense_ones() -> None:
    state = start()
    mean, variance, noise = state.belief.mean, PROBLEM.variance, None
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        rows, labels = PROBLEM.design[part], PROBLEM.labels[part]
        state, info = kalman_clip.update(state, Batch(100 * rows, labels))
        mean, variance, noise = naive_step(mean, variance, noise, rows, labels)
        assert isinstance(state.belief, Diagonal) and state.noise is not None
        assert_near(state.belief.mean, mean, 1e-7)  # the gate is known to seven digits
        assert_near(state.belief.variance, variance, 1e-7)
        assert math.isclose(float(state.noise), noise)
    assert state.steps == 3 and info.degrees_of_freedom == info.rows == 4


def test_gate_is_the_quantile_it_says_it_is() -> None:
    assert math.isclose(kalman_clip.GATE, chi2.ppf(0.99, 1), rel_tol=1e-6)
    innovation, predicted = torch.tensor([0.1, 3.0]), torch.tensor([0.2, 0.2])
    gated = kalman_clip.gated_noise(torch.tensor(0.5), innovation, predicted)
    assert float(gated[0]) == 0.5
    assert math.isclose(float(innovation[1] ** 2 / (predicted[1] + gated[1])), kalman_clip.GATE, rel_tol=1e-6)


def test_a_pair_far_off_moves_the_weights_less_than_without_the_gate() -> None:
    """After many near pairs R is small; then comes an image that points the other way."""
    text = torch.eye(3, 6, dtype=torch.float64)
    state = kalman.init(text, torch.full_like(text, 1e-4), "diagonal")
    near = torch.nn.functional.normalize(text[[0, 1, 2]] + 0.05, dim=-1)
    for _ in range(60):
        state, _ = kalman_clip.update(state, Batch(near, torch.tensor([0, 1, 2])))
    assert state.noise is not None and float(state.noise) < 0.02
    far = Batch(-text[:1] + text[1:2], torch.tensor([0]))
    innovation = 1 - kalman_clip.paired_cosines(state.belief.mean, far.design, far.labels)[0]
    noise = kalman_clip.adapted(state.noise, innovation)
    assert float(kalman_clip.gated_noise(noise, innovation, torch.zeros(1).double())) > 1.5 * float(noise)


def test_there_are_no_negatives() -> None:
    """All images share a direction: the cosines with classes that an image is not of rise with the rest.

    The rule moves the weights of an image's own class alone, towards whatever its images have in common with
    all others; the softmax observation turns to what tells them apart.
    """
    generator = torch.Generator().manual_seed(0)
    common = torch.zeros(8, dtype=torch.float64)
    common[0] = 1.0
    own = torch.nn.functional.normalize(torch.randn(4, 8, generator=generator).double(), dim=-1)
    labels = torch.arange(4).repeat(8)
    noise = 0.1 * torch.randn(32, 8, generator=generator).double()
    rows = torch.nn.functional.normalize(5 * common + own[labels] + noise, dim=-1)
    text = torch.nn.functional.normalize(torch.randn(4, 8, generator=generator).double(), dim=-1)
    variance = torch.full_like(text, 0.05)
    data = [Batch(20 * rows[part], labels[part]) for part in torch.arange(32).split(8)]

    state = kalman.init(text, variance, "diagonal")
    for batch in data:
        state, _ = kalman_clip.update(state, batch)
    usual, _ = run(kalman.init(text, variance, "diagonal"), data, RULES["expected"])

    def all_cosines(weights: Tensor) -> Tensor:
        return rows @ torch.nn.functional.normalize(weights, dim=-1).mT

    def score(weights: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(20 * rows @ weights.mT, labels))

    wrong = ~torch.nn.functional.one_hot(labels).bool()
    risen = all_cosines(state.belief.mean)[wrong].mean() - all_cosines(text)[wrong].mean()
    assert float(risen) > 0.2  # the cosines with classes that an image is *not* of
    assert score(usual.belief.mean) < score(state.belief.mean) - 0.3


def test_a_target_out_of_reach_is_taken_for_noise() -> None:
    """Matched cosines of 0.3: R settles at the squared bias, the statistic far below one, the gate unused."""
    generator = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(5, 64, generator=generator).double(), dim=-1)
    labels = torch.arange(5).repeat(40)
    across = torch.randn(200, 64, generator=generator).double()
    across = torch.nn.functional.normalize(
        across - (across * text[labels]).sum(-1, keepdim=True) * text[labels]
    )
    rows = 0.3 * text[labels] + (1 - 0.3**2) ** 0.5 * torch.nn.functional.normalize(across, dim=-1)
    state, ratios = kalman.init(text, torch.full_like(text, 1e-6), "diagonal"), []
    for part in torch.arange(200).split(10):
        innovation = 1 - kalman_clip.paired_cosines(state.belief.mean, rows[part], labels[part])[0]
        state, _ = kalman_clip.update(state, Batch(rows[part], labels[part]))
        assert state.noise is not None
        assert_near(kalman_clip.gated_noise(state.noise, innovation, torch.zeros(10)), state.noise.expand(10))
        ratios.append(float(innovation.std() ** 2 / state.noise))
    assert abs(float(state.noise) - 0.7**2) < 0.05
    assert max(ratios) < 0.05  # what is called noise is a hundred times what varies


@pytest.mark.parametrize(
    "family, batch, message",
    [
        ("class_block", Batch(PROBLEM.design, PROBLEM.labels), "--covariance diagonal"),
        ("diagonal", Batch(torch.zeros(8, 3, 12).double(), PROBLEM.labels), "needs a linear head"),
    ],
)
def test_what_it_cannot_do_is_refused(family: str, batch: Batch, message: str) -> None:
    state = kalman.init(PROBLEM.mean, PROBLEM.variance, family)
    with pytest.raises(UserError, match=message):
        kalman_clip.update(state, batch)
    with pytest.raises(UserError, match="needs text features"):
        kalman_clip.paired_cosines(torch.zeros(3, 4), PROBLEM.design.float(), PROBLEM.labels)
    with pytest.raises(UserError, match="ekf engine alone"):
        kalman.update(start(), Batch(PROBLEM.design, PROBLEM.labels), find_rule("kalman_clip"))


def test_decay_pulls_towards_the_text() -> None:
    learned, _ = kalman_clip.update(start(), Batch(PROBLEM.design, PROBLEM.labels))
    still, _ = kalman_clip.update(learned, Batch(PROBLEM.design[:1], PROBLEM.labels[:1]))
    pulled, _ = kalman_clip.update(learned, Batch(PROBLEM.design[:1], PROBLEM.labels[:1]), StateSpace(0.5))
    text = start().belief.mean
    assert float((pulled.belief.mean * text).sum()) > float((still.belief.mean * text).sum())


def test_fit_runs_it_and_its_noise_goes_on_from_a_file(tmp_path: Path) -> None:
    task = tiny_task(shots=4)
    settings = bc.FitSettings(
        rule="kalman_clip", covariance="diagonal", order="given", batch_size=3, prior_variance=0.01
    )
    whole = bc.fit(task, settings).posterior
    assert whole.stream is not None and whole.stream.noise is not None and whole.stream.steps == 4
    first = replace(task, support_features=task.support_features[:6], support_labels=task.support_labels[:6])
    rest = replace(task, support_features=task.support_features[6:], support_labels=task.support_labels[6:])
    bc.fit(first, settings).posterior.save(tmp_path / "posterior")
    pieces = bc.update(bc.load_posterior(tmp_path / "posterior"), rest, pace=Pace("given", 3)).posterior
    assert pieces.stream is not None and torch.equal(pieces.stream.noise, whole.stream.noise)
    assert torch.equal(pieces.weights.mean, whole.weights.mean)
    lengths = whole.weights.mean.norm(dim=-1)
    assert_near(lengths, torch.ones_like(lengths), 1e-5)
    with pytest.raises(UserError, match="--covariance diagonal"):
        bc.fit(task, bc.FitSettings(rule="kalman_clip", prior_variance=0.01))
