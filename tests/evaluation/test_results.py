"""Scores of a run, the summary over seeds, and the files that programs read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_clip.data.task import make_task
from bayes_clip.evaluation import metrics
from bayes_clip.evaluation.intervals import intervals
from bayes_clip.evaluation.results import (
    METRIC_COLUMNS,
    SCORE_COLUMNS,
    Cell,
    Comparison,
    Run,
    mean_and_standard_error,
    score,
    summarise,
)
from bayes_clip.evaluation.row_tests import paired_rows
from bayes_clip.evaluation.write import write_tables

FIRST_COLUMNS = (
    "task,model,engine,shots,seed,n_support,n_query,accuracy,nll,brier,ece,adaptive_ece,ood_auroc,"
    "prior_variance,fit_seconds,predict_seconds"
)


def run(engine: str, seed: int, ood: bool = True, **more: Cell) -> Run:
    generator = np.random.default_rng(seed)
    probabilities, labels = generator.dirichlet(np.ones(3), 20), generator.integers(0, 3, 20)
    novelty, outside = generator.normal(size=20), generator.normal(2.0, 1.0, 9) if ood else None
    row: dict[str, Cell] = {
        "task": "toy",
        "model": "linear_probe",
        "engine": engine,
        "shots": 1,
        "seed": seed,
    }
    row |= {"n_support": 3, "n_query": 20, "fit_seconds": np.float64(0.1), **more}
    row |= score(probabilities, labels, novelty, outside)
    return Run(row, probabilities, labels, novelty, np.zeros(20), outside)


@pytest.fixture
def comparison() -> Comparison:
    task = make_task("toy", torch.eye(3), [0, 1, 2], torch.ones(20, 3), [0] * 20, class_names=["a", "b", "ç"])
    runs = (run("map", 0), run("ekf", 0, ood=False, extra="more"), run("map", 1), run("ekf", 1, ood=False))
    return Comparison(runs, {"toy": task}, {"seeds": [0, 1]}, notes=("a note",))


def test_columns_begin_as_promised() -> None:
    assert ",".join(METRIC_COLUMNS).startswith(FIRST_COLUMNS)
    assert set(SCORE_COLUMNS) <= set(METRIC_COLUMNS)


def test_score_is_made_of_the_metrics() -> None:
    one = run("map", 3)
    assert set(score(one.probabilities, one.labels, one.novelty)) == set(SCORE_COLUMNS)
    assert one.row["nll"] == metrics.nll(one.probabilities, one.labels)
    assert one.ood_novelty is not None
    assert one.row["ood_auroc"] == metrics.auroc(one.novelty, one.ood_novelty)
    without = score(one.probabilities, one.labels, one.novelty)
    assert without["ood_auroc"] == without["ood_fpr95"] == ""


def test_summary_has_the_mean_and_its_standard_error(comparison: Comparison) -> None:
    first, second = summarise(comparison)
    assert (first["engine"], second["engine"], first["seeds"]) == ("map", "ekf", 2)
    values = [float(comparison.runs[k].row["nll"]) for k in (0, 2)]
    assert first["nll"] == pytest.approx(np.mean(values))
    assert first["nll_se"] == pytest.approx(abs(values[0] - values[1]) / 2)
    assert second["ood_auroc"] == second["ood_auroc_se"] == second["prior_variance"] == ""


def test_standard_error_of_one_number_is_unknown() -> None:
    assert mean_and_standard_error([2.0]) == (2.0, "")
    assert mean_and_standard_error(["", 2.0, 4.0]) == (3.0, 1.0)
    assert mean_and_standard_error([""]) == ("", "")


def test_csv_has_one_line_per_run_and_reads_back_exactly(comparison: Comparison, tmp_path: Path) -> None:
    write_tables(comparison, tmp_path, intervals(comparison), paired_rows(comparison))
    text = (tmp_path / "metrics.csv").read_text()
    assert text.startswith(FIRST_COLUMNS + ",") and text.splitlines()[0].endswith(",extra")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["engine"] for row in rows] == ["map", "ekf", "map", "ekf"]
    for row, one in zip(rows, comparison.runs, strict=True):
        assert float(row["nll"]) == one.row["nll"]
    assert rows[0]["fit_seconds"] == "0.1" and rows[1]["ood_auroc"] == "" and rows[0]["extra"] == ""


def test_predictions_give_back_the_numbers_of_the_table(comparison: Comparison, tmp_path: Path) -> None:
    write_tables(comparison, tmp_path, intervals(comparison), paired_rows(comparison))
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as arrays:
        for index, one in enumerate(comparison.runs):
            found = metrics.nll(arrays[f"probabilities_{index}"], arrays[f"labels_{index}"])
            assert found == one.row["nll"]
        assert "ood_novelty_0" in arrays and "ood_novelty_1" not in arrays
        assert arrays["class_names_toy"].tolist() == ["a", "b", "ç"]


def test_config_tells_versions_and_notes(comparison: Comparison, tmp_path: Path) -> None:
    write_tables(comparison, tmp_path, intervals(comparison), paired_rows(comparison))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["seeds"] == [0, 1] and config["notes"] == ["a note"]
    assert config["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_results_describe_themselves(comparison: Comparison) -> None:
    assert repr(comparison) == "Comparison(4 runs; tasks: toy; engines: map, ekf)"
    assert repr(comparison.runs[0]).startswith("Run(toy, map, 1, 0, accuracy=")
