from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayes_clip.errors import UserError
from bayes_clip.state_space import StateSpace


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


@pytest.mark.parametrize("decay", [0.0, -0.1, 1.1, float("nan")])
def test_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(UserError, match="--decay"):
        StateSpace(decay)


@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_process_noise_out_of_range_is_refused(noise: float) -> None:
    with pytest.raises(UserError, match="--process-noise"):
        StateSpace(1.0, noise)
