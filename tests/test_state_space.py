from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_problems import assert_near

from bayes_clip.errors import UserError
from bayes_clip.state_space import Dynamics, StateSpace, as_dynamics

SITES = {"weights": 4, "bias": 2}
LIKE = torch.zeros(1, dtype=torch.float64)


@given(decay=st.floats(0.01, 1.0), variance=st.floats(0.1, 10.0))
def test_unless_given_the_noise_keeps_the_prior_stationary(decay: float, variance: float) -> None:
    space = StateSpace(decay)
    assert decay**2 * variance + space.noise * variance == pytest.approx(variance)


def test_static_is_no_decay_and_no_noise() -> None:
    assert StateSpace().is_static
    assert not StateSpace(decay=0.99).is_static
    assert not StateSpace(decay=0.99, process_noise=0.0).is_static
    assert not StateSpace(process_noise=0.1).is_static
    assert StateSpace(decay=0.9, process_noise=0.5).noise == 0.5
    assert StateSpace({"bias": 1.0}, {"weights": 0.0}).is_static
    assert not StateSpace({"bias": 0.9}).is_static
    assert not StateSpace(1.0, {"bias": 0.1}).is_static


@pytest.mark.parametrize("decay", [0.0, -0.1, 1.1, float("nan")])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match="--decay"):
        StateSpace(decay)
    with pytest.raises(UserError, match="--decay bias="):
        StateSpace({"weights": 1.0, "bias": decay})


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_process_noise_out_of_range_is_refused(noise: float) -> None:
    with pytest.raises(UserError, match="--process-noise"):
        StateSpace(1.0, noise)
    with pytest.raises(UserError, match="--process-noise bias="):
        StateSpace(1.0, {"bias": noise})


def test_numbers_stay_numbers() -> None:
    """What keeps a linear head bit-identical: no tensor enters its arithmetic."""
    assert StateSpace(0.9).for_sites(SITES, LIKE) == Dynamics(0.9, 1 - 0.9**2)
    assert StateSpace(0.9).for_sites(SITES, LIKE) == as_dynamics(StateSpace(0.9))
    assert StateSpace({"weights": 0.9}, 0.5).for_sites({"weights": 4}, LIKE) == Dynamics(0.9, 0.5)
    assert StateSpace({"weights": 0.9, "bias": 0.9}).for_sites(SITES, LIKE).decay == 0.9
    assert StateSpace().for_sites(SITES, LIKE).is_static


def test_sites_are_resolved_in_flat_order() -> None:
    step = StateSpace({"bias": 0.5}).for_sites(SITES, LIKE)
    assert_near(step.decay, torch.tensor([1.0, 1, 1, 1, 0.5, 0.5]).double())
    assert_near(step.noise, torch.tensor([0.0, 0, 0, 0, 0.75, 0.75]).double())
    assert not step.is_static
    step = StateSpace({"bias": 0.5}, {"weights": 0.1}).for_sites(SITES, LIKE.float())
    assert step.noise.dtype == torch.float32
    assert_near(step.noise, torch.tensor([0.1, 0.1, 0.1, 0.1, 0.75, 0.75]))


def test_unknown_sites_are_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"--process-noise wieghts: .*mean 'weights'\? It has: weights, bias"):
        StateSpace(1.0, {"wieghts": 0.1}).for_sites(SITES, LIKE)
    with pytest.raises(UserError, match="--decay class_weights"):
        StateSpace({"class_weights": 0.9}).for_sites(SITES, LIKE)
    with pytest.raises(UserError, match="for_sites"):
        as_dynamics(StateSpace({"bias": 0.9}))


@given(
    decay=st.floats(0.1, 1.0),
    noise=st.none() | st.floats(0.0, 2.0),
    first=st.integers(0, 6),
    second=st.integers(0, 6),
)
def test_elapsed_time_is_the_same_steps_one_by_one(
    decay: float, noise: float | None, first: int, second: int
) -> None:
    one = as_dynamics(StateSpace(decay, noise))
    factor, variance = 1.0, 0.0
    for _ in range(first + second):
        factor, variance = factor * one.decay, one.decay**2 * variance + one.noise
    whole = one.over(first + second)
    assert whole.decay == pytest.approx(factor, rel=1e-9)
    assert whole.noise == pytest.approx(variance, rel=1e-9, abs=1e-12)
    early, late = one.over(first + 0.5), one.over(second - 0.5 if second else 0)
    if second:
        assert early.decay * late.decay == pytest.approx(factor, rel=1e-9)
        assert late.decay**2 * early.noise + late.noise == pytest.approx(variance, rel=1e-9, abs=1e-12)


def test_elapsed_time_by_site_is_that_of_each_site() -> None:
    step = StateSpace({"bias": 0.5}, {"weights": 0.1}).for_sites(SITES, LIKE).over(2.5)
    alone = as_dynamics(StateSpace(0.5)).over(2.5)
    wanted = torch.tensor([0.25] * 4 + [alone.noise] * 2, dtype=torch.float64)
    assert_near(step.noise, wanted)
    assert_near(step.decay, torch.tensor([1.0] * 4 + [alone.decay] * 2, dtype=torch.float64))
    assert alone.decay**2 + alone.noise == pytest.approx(1.0)


def test_one_step_is_the_step_itself_and_none_is_static() -> None:
    step = as_dynamics(StateSpace(0.9))
    assert step.over(1) is step
    assert step.over(0).is_static
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="elapsed time"):
            step.over(wrong)


def test_the_slightest_decay_is_not_static() -> None:
    for space in (StateSpace(1 - 1e-12), StateSpace(1.0, 1e-300)):
        assert not space.is_static and not as_dynamics(space).is_static
