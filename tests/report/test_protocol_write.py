"""The figure draws the numbers of the table, and the tables say what the rows do."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from bayes_clip.evaluation.paired import Row, pair_rows, summary_rows
from bayes_clip.report.protocol_plots import dodged, protocol_figure
from bayes_clip.report.protocol_write import FILES, paired_markdown, write_protocol

SHOTS = (1, 4, 16)


def rows_of(models: tuple[str, ...] = ("probe",), seeds: tuple[int, ...] = (1, 2, 3)) -> list[Row]:
    random = np.random.default_rng(0)
    return [
        {
            **{"task": task, "part": "all", "model": model, "engine": engine, "shots": shots, "seed": seed},
            **{"accuracy": 0.5 + random.random() / 2, "nll": random.random(), "ece": random.random() / 9},
        }
        for task, model, engine, shots, seed in product(("a", "b"), models, ("ekf", "map"), SHOTS, seeds)
    ]


def drawn(figure: Figure) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """x and y of every line of every panel."""
    return [
        [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in axes.get_lines()]
        for axes in figure.axes
    ]


@pytest.mark.parametrize("models", [("probe",), ("probe", "tip", "clap")])
def test_the_figure_draws_the_means_and_their_intervals(models: tuple[str, ...]) -> None:
    summary = [row for row in summary_rows(rows_of(models)) if row["task"] == "a"]
    methods = list(product(models, ("ekf", "map")))
    panels = drawn(protocol_figure(summary))
    assert len(panels) == 3
    for metric, lines in zip(("accuracy", "nll", "ece"), panels, strict=True):
        expected = []
        for place, method in enumerate(methods):
            shift = dodged(place, len(methods))
            points = [
                row for row in summary if (row["model"], row["engine"], row["metric"]) == (*method, metric)
            ]
            expected.append(([shift * k for k in SHOTS], [row["mean"] for row in points]))
            expected += [([shift * row["shots"]] * 2, [row["low"], row["high"]]) for row in points]
        assert len(lines) == len(expected)
        for (x, y), (wanted_x, wanted_y) in zip(lines, expected, strict=True):
            assert np.allclose(x, wanted_x, rtol=1e-12) and np.allclose(y, wanted_y, rtol=1e-12)


def test_no_two_lines_look_alike_and_none_leans_on_colour_alone() -> None:
    models = tuple(f"m{number}" for number in range(12))
    summary = [row for row in summary_rows(rows_of(models, (1, 2))) if row["task"] == "a"]
    lines = [line for line in protocol_figure(summary).axes[0].get_lines() if line.get_marker() != "None"]
    looks = [(line.get_marker(), line.get_linestyle()) for line in lines]
    assert len(looks) == 24 and len(set(looks)) == 24
    assert max(dodged(place, 24) for place in range(24)) < 2**0.2


def test_one_seed_has_no_bars() -> None:
    summary = [row for row in summary_rows(rows_of(seeds=(1,))) if row["task"] == "a"]
    assert all(len(lines) == 2 for lines in drawn(protocol_figure(summary)))


def test_all_files_are_written_and_tell_the_same(tmp_path: Path) -> None:
    rows = rows_of()
    write_protocol(rows, tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == {*FILES}
    names = {item.name for item in (tmp_path / "figures").iterdir()}
    assert names == {
        f"shots_{task}.{kind}" for task in ("a", "b", "mean_of_data_sets") for kind in ("png", "svg")
    }
    assert (tmp_path / "figures" / "shots_a.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    wanted = summary_rows(rows)
    assert [{name: str(value) for name, value in row.items()} for row in wanted] == table
    page = (tmp_path / "summary.md").read_text()
    first = wanted[0]
    assert f"{first['mean']:.3f} ± {float(first['high']) - float(first['mean']):.3f}" in page


def test_the_best_is_set_against_the_others_whichever_way_is_better() -> None:
    rows = [dict(row) for row in rows_of(seeds=(1, 2)) if row["task"] == "a" and row["shots"] == 1]
    for row in rows:
        is_map = row["engine"] == "map"
        row |= {"accuracy": 0.8 + 0.1 * is_map + 0.01 * int(row["seed"]) * is_map, "nll": 0.5 + 0.2 * is_map}
    page = paired_markdown(pair_rows(rows), summary_rows(rows))
    accuracy, nll = (page.split(f"## a: {title}")[1].split("##")[0] for title in ("Accuracy", "NLL"))
    assert "| 1 | probe · map | probe · ekf | 2 | +0.1150 |" in accuracy
    assert "| 1 | probe · ekf | probe · map | 2 | -0.2000 |" in nll
