from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_problems import SmallProblem, small_problem

from bayes_clip.inference import kalman
from bayes_clip.inference.drift import GRID, Drift, estimate_process_noise, forgetting
from bayes_clip.inference.kalman import Batch, StepInfo
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.stream import run
from bayes_clip.state_space import StateSpace


def infos(score: float, evidence: float = 0.0, batches: int = 2) -> list[StepInfo]:
    """Batches of which the first carries the scores."""
    one = [(score, evidence), *[(0.0, 0.0)] * (batches - 1)]
    return [
        SimpleNamespace(
            prequential_score=torch.tensor(a), change=SimpleNamespace(log_evidence=torch.tensor(b))
        )
        for a, b in one
    ]  # type: ignore[misc]


def stream(problem: SmallProblem, size: int) -> list[Batch]:
    rows = torch.arange(len(problem.labels)).split(size)
    return [Batch(problem.design[part], problem.labels[part]) for part in rows]


@settings(max_examples=30, deadline=None)
@given(peak=st.floats(-6.9, 0.9), width=st.floats(0.3, 5.0))
def test_golden_section_finds_a_peak_to_its_tolerance(peak: float, width: float) -> None:
    calls: list[float] = []

    def filtered(noise: float) -> list[StepInfo]:
        calls.append(noise)
        return infos(-((math.log10(noise or 1e-30) - peak) ** 2) / width, noise)

    drift = estimate_process_noise(filtered)
    assert abs(math.log10(drift.process_noise) - peak) < 0.2
    assert len(calls) == len(set(calls)) == len(drift.profile) <= 16
    noises = [tried.process_noise for tried in drift.profile]
    assert noises == sorted(noises) and set(GRID) <= set(noises)
    assert drift.by_evidence == noises[-1]
    assert f"{len(calls)} tried" in repr(drift)


def test_of_two_peaks_the_higher_is_taken() -> None:
    def filtered(noise: float) -> list[StepInfo]:
        exponent = math.log10(noise or 1e-30)
        return infos(max(1 - (exponent + 5) ** 2, 2 - (exponent + 1) ** 2))

    assert estimate_process_noise(filtered).process_noise == pytest.approx(0.1, rel=0.5)


def test_a_flat_score_is_static_and_a_broken_filter_never_chosen() -> None:
    assert estimate_process_noise(lambda noise: infos(-1.0)).process_noise == 0
    broken = estimate_process_noise(lambda noise: infos(math.nan if noise > 1e-3 else noise, math.nan))
    assert 1e-4 < broken.process_noise <= 1e-3
    assert broken.by_evidence == 0


def test_one_batch_says_nothing_about_drift() -> None:
    drift = estimate_process_noise(lambda noise: infos(noise, batches=1))
    assert drift.process_noise == 0 and len(drift.profile) == 1


@given(noise=st.floats(1e-9, 1e3))
def test_forgetting_is_a_decay_whose_stationary_noise_is_its_share(noise: float) -> None:
    space = StateSpace(forgetting(noise))
    assert space.noise == pytest.approx(noise / (1 + noise), rel=1e-6)
    assert forgetting(0.0) == 1.0


def drifting_problem(angle: float) -> SmallProblem:
    """Two classes told apart by a direction that turns by `angle` radians a batch of 5 rows;
    20 batches."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(2, (100,), generator=generator)
    turned = angle * (torch.arange(100) // 5).double()
    sign = (2 * labels - 1).double()
    design = sign[:, None] * torch.stack([turned.cos(), turned.sin()], dim=-1)
    design = 2 * design + 0.5 * torch.randn(100, 2, generator=generator, dtype=torch.float64)
    mean = torch.zeros(2, 2, dtype=torch.float64)
    return SmallProblem(design, labels, mean, torch.ones_like(mean))


def estimate(problem: SmallProblem) -> Drift:
    state, data = kalman.init(problem.mean, problem.variance, "full"), stream(problem, 5)
    return estimate_process_noise(
        lambda noise: run(state, data, RULES["iterated"], StateSpace(1.0, noise))[1]
    )


def test_a_stream_that_turns_wants_noise_and_one_that_stands_gains_nothing_by_it() -> None:
    gains = []
    for angle in (0.0, 0.25):
        drift = estimate(drifting_problem(angle))
        assert drift.profile[0].process_noise == 0
        best = max(tried.prequential_score for tried in drift.profile)
        gains.append(best - drift.profile[0].prequential_score)
    assert gains[0] < 1 and gains[1] > 10  # nats above the static filter
    assert drift.process_noise > 1e-2


def test_the_score_of_a_label_does_not_know_the_label() -> None:
    """Changing the last batch's labels changes no score but its own."""
    problem = small_problem(rows=9)
    state, data = kalman.init(problem.mean, problem.variance, "full"), stream(problem, 3)
    other = [*data[:2], Batch(data[2].design, (data[2].labels + 1) % 3)]
    for noise in (0.0, 0.1):
        scores = [
            [float(info.prequential_score) for info in run(state, one, RULES["plain"], space)[1]]
            for one in (data, other)
            for space in (StateSpace(1.0, noise),)
        ]
        assert scores[0][:2] == scores[1][:2] and scores[0][2] != scores[1][2]
