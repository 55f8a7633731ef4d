from __future__ import annotations

import pandas as pd
import pytest
from scipy import stats

from analysis.published_methods import METRICS, SHOTS, conclusions, grids, losses, standings, table_of

SEEDS = range(5)
NOISE = (0.0, 0.01, -0.01, 0.02, -0.02)
METHODS = {("linear_probe", "ekf"): 0.0, ("clap", "sgd"): 0.05, ("linear_probe", "map"): 0.001}


def frame(shots: tuple[int, ...] = SHOTS) -> pd.DataFrame:
    """Draws that move all methods together; the third method is a hair behind, its order by chance."""
    rows = []
    for (model, engine), behind in METHODS.items():
        for count in shots:
            for seed in SEEDS:
                own = behind + NOISE[seed] + (NOISE[(seed * 2 + 1) % 5] / 4 if engine == "map" else 0.0)
                scores = {"accuracy": 0.7 - own, "nll": 1.0 + own, "ece": 0.03 + own}
                cell = {"task": "made", "model": model, "engine": engine, "shots": count, "seed": seed}
                rows.append({**cell, **scores})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("metric", METRICS)
def test_within_is_a_paired_t_interval_that_reaches_zero(metric: str) -> None:
    found = standings(frame((4,)), metric)
    assert found["linear_probe", "ekf"].is_first and found["linear_probe", "ekf"].within
    assert not found["clap", "sgd"].within  # 0.05 behind in every draw, though draws differ by 0.04
    assert found["linear_probe", "map"].within
    differences = [0.001 + NOISE[(seed * 2 + 1) % 5] / 4 for seed in SEEDS]
    assert stats.ttest_1samp(differences, 0.0).pvalue > 0.05  # the independent formula agrees


def test_tables_mark_the_first_and_count_places() -> None:
    table, count = table_of(frame(), "made")
    assert "**0.700**" in table and count["linear_probe", "ekf"] == len(SHOTS) * len(METRICS)
    assert count["clap", "sgd"] == 0


def test_losses_are_said_with_the_method_that_wins() -> None:
    assert losses(frame(), ("linear_probe", "ekf")) == "It loses nowhere."
    assert "against 0.700 (linear_probe · ekf)" in losses(frame(), ("clap", "sgd"))
    assert "not run" in losses(frame(), ("gda", "ekf"))
    assert "linear_probe · ekf stands best" in conclusions(frame())


def test_every_published_method_is_in_the_grid() -> None:
    trained = {model for grid in grids() for model in grid.models if "sgd" in grid.engines}
    assert trained == {
        *("linear_probe", "clap", "gda", "task_residual", "clip_adapter", "tip_adapter"),
        *("clip_adapter_no_relu", "visual_projection"),
    }
