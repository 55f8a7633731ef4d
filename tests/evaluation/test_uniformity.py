from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from bayes_clip.evaluation.coverage import coverage
from bayes_clip.evaluation.uniformity import (
    MISSHAPEN,
    NARROW,
    PASSES,
    SHIFTED,
    WIDE,
    Uniformity,
    band,
    check_uniform,
    rejected,
    verdict,
)

DRAWS, COUNT = 199, 200


def toy_ranks(scale: float = 1.0, shift: float = 0.0, count: int = COUNT, seed: int = 0) -> np.ndarray:
    """Ranks of the truth under a conjugate normal posterior whose width and place are deliberately off.

    θ ~ N(0, 1), y ~ N(θ, ½²): the exact posterior is N(0.8 y, 0.2).
    """
    generator = np.random.default_rng(seed)
    truth = generator.normal(size=count)
    seen = truth + 0.5 * generator.normal(size=count)
    deviation = 0.2**0.5
    noise = generator.normal(size=(count, DRAWS))
    draws = 0.8 * seen[:, None] + deviation * (shift + scale * noise)
    return (draws < truth[:, None]).sum(1)


@pytest.mark.parametrize(
    ("scale", "shift", "wanted"),
    [(1.0, 0.0, PASSES), (0.6, 0.0, NARROW), (1.6, 0.0, WIDE), (1.0, 0.5, SHIFTED), (1.0, -0.5, SHIFTED)],
)
def test_a_conjugate_posterior_passes_and_a_spoilt_one_is_called_what_it_is(
    scale: float, shift: float, wanted: str
) -> None:
    quantities = [toy_ranks(scale, shift, seed=seed) for seed in range(6)]
    checks = [check_uniform(ranks, DRAWS) for ranks in quantities]
    assert verdict(checks, [False] * 6) == wanted
    signs = {SHIFTED: -np.sign(shift), NARROW: 1, WIDE: -1}
    if wanted != PASSES:
        measured = checks[0].shift if wanted == SHIFTED else checks[0].spread
        assert np.sign(measured) == signs[wanted] and abs(measured) > 3


def test_p_values_of_uniform_ranks_are_those_of_a_level() -> None:
    generator = np.random.default_rng(3)
    found = np.array([check_uniform(generator.integers(0, 200, 60), DRAWS).p_value for _ in range(600)])
    for level in (0.01, 0.05, 0.2):
        low, high = binom.interval(0.999, len(found), level)
        assert low <= (found <= level).sum() <= high


def test_the_band_holds_a_uniform_line_as_often_as_it_says() -> None:
    generator = np.random.default_rng(4)
    low, high = band(COUNT, DRAWS, level=0.1)
    counts = generator.multinomial(COUNT, np.full(DRAWS + 1, 1 / (DRAWS + 1)), size=2000)
    shares = counts.cumsum(1)[:, :-1] / COUNT
    inside = ((shares >= low) & (shares <= high)).all(1).sum()
    least, most = binom.interval(0.999, 2000, 0.9)
    assert least <= inside <= most


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_is_its_definition(p_values: list[float]) -> None:
    found = rejected(np.array(p_values), 0.05)
    left = sorted(range(len(p_values)), key=lambda index: p_values[index])
    naive = set()
    for step, index in enumerate(left):
        if p_values[index] > 0.05 / (len(left) - step):
            break
        naive.add(index)
    assert set(np.flatnonzero(found)) == naive


def test_the_log_likelihood_speaks_by_its_direction_and_only_where_nothing_else_fails() -> None:
    fine = Uniformity(0.5, 0.1, 0.1)
    low, high = Uniformity(1e-4, -5.0, 1.0), Uniformity(1e-4, 5.0, 1.0)
    assert verdict([fine, low], [False, True]) == NARROW
    assert verdict([fine, high], [False, True]) == WIDE
    assert verdict([Uniformity(1e-4, 0.2, 3.0), high], [False, True]) == NARROW
    assert verdict([Uniformity(1e-4, 0.2, 0.3)], [False]) == MISSHAPEN


def test_coverage_of_a_sound_posterior_is_its_level_and_of_a_narrow_one_what_geometry_says() -> None:
    from scipy.stats import norm

    sound, narrow = (toy_ranks(scale, count=4000, seed=1)[:, None] for scale in (1.0, 0.5))
    for exact, short in zip(coverage(sound, DRAWS), coverage(narrow, DRAWS), strict=True):
        assert exact.inside and not short.inside
        half = norm.isf((1 - short.level) / 2)
        assert short.share == pytest.approx(norm.cdf(half / 2) - norm.cdf(-half / 2), abs=0.03)


def test_central_intervals_count_whole_ranks() -> None:
    every = np.arange(DRAWS + 1)[:, None]  # each rank once
    assert [found.share for found in coverage(every, DRAWS)] == pytest.approx([0.5, 0.8, 0.95], abs=1e-12)
