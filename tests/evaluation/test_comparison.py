from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_problems import tiny_task

from bayes_clip.data.task import few_shot
from bayes_clip.errors import UserError
from bayes_clip.evaluation.comparison import compare
from bayes_clip.evaluation.results import METRIC_COLUMNS
from bayes_clip.evaluation.scoring import score_posterior
from bayes_clip.fitting import fit
from bayes_clip.settings import FitSettings

TASK = tiny_task(ood=True)
QUICK = ("zero_shot", "map", "ekf")
SETTINGS = FitSettings(prior_variance=0.01)


def test_every_combination_is_one_row_with_the_promised_columns() -> None:
    other = tiny_task(seed=1, name="other")
    compared = compare([TASK, other], engines=QUICK, shots=[1, 2], seeds=[0, 1], settings=SETTINGS)
    assert len(compared.runs) == 2 * 3 * 2 * 2
    keys = {tuple(run.row[name] for name in ("task", "engine", "shots", "seed")) for run in compared.runs}
    assert len(keys) == len(compared.runs)
    for run in compared.runs:
        assert set(METRIC_COLUMNS) <= run.row.keys()
        assert run.row["n_support"] == 3 * run.row["shots"] and run.row["n_query"] == 60
        assert run.probabilities.shape == (60, 3) and run.probabilities.dtype == np.float64
        assert np.allclose(run.probabilities.sum(1), 1)
        assert (run.row["ood_auroc"] == "") == (run.row["task"] == "other") == (run.ood_novelty is None)
        assert (run.row["prior_variance"] == "") == (run.row["engine"] == "zero_shot")
        assert run.row["rule"] == ("expected" if run.row["engine"] == "ekf" else "")
        hits = run.probabilities.argmax(1) == run.labels
        assert run.row["accuracy"] == pytest.approx(hits.mean())
        picked = run.probabilities[range(60), run.labels]
        assert run.row["nll"] == pytest.approx(-np.log(picked).mean())
    assert compared.tasks.keys() == {"tiny", "other"}
    assert compared.config["shots"] == [1, 2] and compared.config["settings"]["prior_variance"] == 0.01


def test_all_stands_for_every_engine_but_nuts_and_repeats_are_dropped() -> None:
    settings = FitSettings(prior_variance=0.01, predictive="plug_in")
    compared = compare([TASK], engines=["map", "all", "map"], settings=settings)
    names = [run.row["engine"] for run in compared.runs]
    assert names == ["map", "zero_shot", "sgd", "ekf", "laplace", "vi"]


@pytest.mark.parametrize(
    "names, message",
    [
        ({"engines": ["ekff"]}, r"--engines ekff: no such engine\. Did you mean 'ekf'"),
        ({"models": ["linear_prob"]}, r"--models linear_prob: no such model\. Did you mean 'linear_probe'"),
        ({"models": ["nowhere.py"]}, r"nowhere\.py: no such model file"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_fitted(names: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare([TASK], settings=SETTINGS, **names)


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two tasks have the same name"):
        compare([TASK, tiny_task(seed=1)], engines=["map"])


def test_zero_shot_is_left_out_with_one_note_where_there_is_no_text() -> None:
    bare = tiny_task(text=False, name="bare")
    compared = compare([bare], engines=["zero_shot", "map"], seeds=[0, 1], settings=SETTINGS)
    assert [run.row["engine"] for run in compared.runs] == ["map", "map"]
    notes = [note for note in compared.notes if "zero_shot" in note]
    assert len(notes) == 1 and notes[0].startswith("left out: bare: ")


def test_a_class_with_too_few_rows_is_noted_once() -> None:
    compared = compare([TASK], engines=["map", "zero_shot"], shots=[9], settings=SETTINGS)
    assert sum("fewer than the 9 images" in note for note in compared.notes) == 1


def test_the_draw_of_the_support_set_follows_the_seed() -> None:
    compared = compare([TASK], engines=["map"], shots=[2], seeds=[0, 1, 0], settings=SETTINGS)
    first, second, again = (run.probabilities for run in compared.runs)
    assert np.array_equal(first, again) and not np.array_equal(first, second)
    by_hand = fit(few_shot(TASK, 2, 1), FitSettings(engine="map", prior_variance=0.01))
    assert np.array_equal(second, by_hand.posterior.predict(TASK.query_features).probabilities.numpy())


def test_a_posterior_is_not_scored_on_a_task_with_other_classes() -> None:
    posterior = fit(TASK, FitSettings(engine="map", prior_variance=0.01)).posterior
    with pytest.raises(UserError, match="other has 4 classes and the posterior 3"):
        score_posterior(posterior, tiny_task(classes=4, name="other"))


def test_a_posterior_is_not_scored_on_classes_of_other_names() -> None:
    named = replace(TASK, class_names=("ant", "bee", "cat"))
    posterior = fit(named, FitSettings(engine="map", prior_variance=0.01)).posterior
    with pytest.raises(UserError, match="does not know its class 'dog'"):
        score_posterior(posterior, replace(named, class_names=("ant", "dog", "bee")))
    score_posterior(posterior, TASK)  # whose names are not known


def test_choices_that_an_engine_does_not_use_are_noted() -> None:
    settings = FitSettings(prior_variance=0.01, decay=0.9, predictive="plug_in")
    notes = compare([TASK], engines=["map", "ekf"], seeds=[0, 1], settings=settings).notes
    assert sum("map knows no --decay" in note for note in notes) == 1
    assert any("every seed repeats" in note for note in notes)
    assert not any(note.startswith("ekf") for note in notes)
