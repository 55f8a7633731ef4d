"""Robustness curves: clean rows are the plain evaluation, the same again, and refusals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from bayes_clip.data.corruptions import CORRUPTIONS, corrupted
from bayes_clip.data.resolve import load_task
from bayes_clip.data.task import Task, few_shot, make_task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.metrics import auroc
from bayes_clip.evaluation.scoring import score_posterior
from bayes_clip.evaluation.shift import CLEAN, SHIFT_COLUMNS, Shifted, chosen_corruptions, shift
from bayes_clip.fitting import fit
from bayes_clip.posterior import Posterior
from bayes_clip.report.shift_plots import curve
from bayes_clip.report.shift_write import OUR_FILES, finding, summary, write_shift


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture(scope="module")
def posterior(task: Task) -> Posterior:
    return fit(few_shot(task, 2, 0)).posterior


@pytest.fixture(scope="module")
def shifted(task: Task, posterior: Posterior) -> Shifted:
    return shift(posterior, task, ["noise", "inversion"], [1, 5], most=40)


def test_the_clean_row_is_the_plain_evaluation(task: Task, posterior: Posterior) -> None:
    clean = shift(posterior, task, ["jpeg"], [1], most=30, seed=3).rows[0]
    drawn = np.sort(np.random.default_rng(3).permutation(len(task.query_labels))[:30])
    plain = score_posterior(posterior, task.with_query(drawn)).row  # type: ignore[arg-type]
    assert (clean["corruption"], clean["severity"], clean["novelty_auroc"]) == (CLEAN, 0, "")
    for name in ("accuracy", "nll", "ece"):
        assert clean[name] == pytest.approx(plain[name], abs=1e-9)


def test_a_row_is_what_the_corrupted_pictures_give(
    task: Task, posterior: Posterior, shifted: Shifted
) -> None:
    rows = np.sort(np.random.default_rng(0).permutation(len(task.query_labels))[:40])
    pictures, encoder = task.query_pictures, task.encoder
    assert pictures is not None and encoder is not None
    worse = [corrupted(pictures.read(row), "noise", 5, (0, row)) for row in rows]  # type: ignore[arg-type]
    said = posterior.predict(encoder.encode_images(worse))
    before = posterior.predict(task.query_features[rows])
    found = next(row for row in shifted.rows if (row["corruption"], row["severity"]) == ("noise", 5))
    right = said.probabilities.argmax(1) == task.query_labels[rows]
    assert found["accuracy"] == pytest.approx(float(right.double().mean()))
    assert found["novelty_mean"] == pytest.approx(float(said.novelty.double().mean()), rel=1e-4)
    assert found["novelty_auroc"] == pytest.approx(auroc(before.novelty.numpy(), said.novelty.numpy()))


def test_severe_noise_costs_accuracy_and_is_noticed(shifted: Shifted) -> None:
    assert [(row["corruption"], row["severity"]) for row in shifted.rows] == [
        *((CLEAN, 0), ("noise", 1), ("noise", 5), ("inversion", 1), ("inversion", 5)),
    ]
    clean, _, noisy, *_ = shifted.rows
    assert float(noisy["accuracy"]) < float(clean["accuracy"]) - 0.2
    assert float(noisy["novelty_auroc"]) > 0.9


def test_files_tables_and_words_agree(shifted: Shifted, tmp_path: Path) -> None:
    write_shift(shifted, tmp_path / "out", {"asked": "<this>"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == OUR_FILES
    with (tmp_path / "out" / "shift.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SHIFT_COLUMNS and len(rows) == len(shifted.rows)
    assert [float(row["nll"]) for row in rows] == [row["nll"] for row in shifted.rows]
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        "robustness.png",
        "robustness.svg",
    }
    mean = summary(shifted)[-1]
    both = [float(row["accuracy"]) for row in shifted.rows if row["severity"] == 5]
    assert (mean["corruption"], mean["severity"]) == ("mean", 5)
    assert mean["accuracy"] == pytest.approx(sum(both) / 2)
    assert "severity 5, furthest under" in finding(shifted)
    severities, values = curve(shifted.rows, "noise", "novelty_auroc")
    assert severities == [0, 1, 5] and values[0] == 0.5


def test_refusals(posterior: Posterior, task: Task) -> None:
    assert len(chosen_corruptions(["all"], [1, 2])) == 2 * len(CORRUPTIONS)
    with pytest.raises(UserError, match=r"corruption 'nose'.*Did you mean 'noise'"):
        chosen_corruptions(["nose"], [1])
    with pytest.raises(UserError, match="severity 6"):
        chosen_corruptions(["noise"], [6])
    features = task.query_features[:20]
    bare = make_task("bare", features, task.query_labels[:20], features, task.query_labels[:20],
                     text_features=task.text_features, class_names=task.class_names)  # fmt: skip
    with pytest.raises(UserError, match=r"bare: features without pictures.*give the pictures"):
        shift(posterior, bare)
