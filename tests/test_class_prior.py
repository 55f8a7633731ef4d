"""Unequal numbers of labels: an even class prior is Bayes' rule, and rare classes keep their chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_clip.data.task import Task, few_shot, make_task
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.posterior import Posterior
from bayes_clip.settings import FitSettings
from bayes_clip.storage.folder import load_posterior
from bayes_clip.streaming import update

COUNTS = (30, 1, 30, 1, 30, 1)  # labels of each class


def problem(counts: tuple[int, ...] = COUNTS, seed: int = 0) -> Task:
    """Overlapping classes around text features that are half right."""
    generator = np.random.default_rng(seed)
    classes, width = len(counts), 12
    centres = generator.normal(size=(classes, width))
    labels, asked = np.repeat(np.arange(classes), counts), np.repeat(np.arange(classes), 60)
    rows, queries = (
        centres[each] + 1.3 * generator.normal(size=(len(each), width)) for each in (labels, asked)
    )
    text = centres + 0.8 * generator.normal(size=centres.shape)
    return make_task("made", rows, labels, queries, asked, text_features=text, logit_scale=10.0)


def accuracy_of_rare(posterior: Posterior, task: Task) -> float:
    right = posterior.predict(task.query_features).probabilities.argmax(1) == task.query_labels
    return float(right[task.query_labels % 2 == 1].double().mean())


@pytest.mark.parametrize("engine", ["map", "ekf", "laplace"])
def test_rare_classes_keep_their_chance(engine: str) -> None:
    found: dict[str, list[float]] = {"zero_shot": [], "support": [], "even": []}
    for seed in range(3):
        task = problem(seed=seed)
        for name, settings in (
            ("zero_shot", FitSettings(engine="zero_shot")),
            ("support", FitSettings(engine=engine)),
            ("even", FitSettings(engine=engine, class_prior="even")),
        ):
            found[name].append(accuracy_of_rare(fit(task, settings).posterior, task))
    means = {name: np.mean(values) for name, values in found.items()}
    assert means["support"] < means["zero_shot"] - 0.05  # what unequal labels do by themselves
    assert means["even"] > means["zero_shot"] - 0.05


@pytest.mark.parametrize("predictive", ["plug_in", "monte_carlo"])
def test_it_is_bayes_rule_for_another_class_prior(predictive: str) -> None:
    task = problem()
    given = FitSettings(engine="map", prior_variance=0.1, predictive=predictive, dtype="float64")
    plain = fit(task, given).posterior.predict(task.query_features)
    even = fit(task, replace(given, class_prior="even")).posterior.predict(task.query_features)
    naive = plain.probabilities / torch.tensor(COUNTS, dtype=torch.float64)
    torch.testing.assert_close(even.probabilities, naive / naive.sum(1, keepdim=True), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(even.logit_variance, plain.logit_variance, rtol=0, atol=0)


def test_equal_numbers_and_zero_shot_are_left_alone() -> None:
    equal = problem((4,) * 6)
    for engine in ("map", "zero_shot"):
        task = equal if engine == "map" else problem()
        plain, even = (
            fit(task, FitSettings(engine=engine, class_prior=prior)).posterior
            for prior in ("support", "even")
        )
        assert even.class_offset is None
        said = (each.predict(task.query_features).probabilities for each in (plain, even))
        assert torch.equal(*said)


def test_counts_are_kept_and_grow(tmp_path: Path) -> None:
    task = problem()
    posterior = fit(task, FitSettings(class_prior="even", prior_variance=0.1)).posterior
    posterior.save(tmp_path / "kept")
    again = load_posterior(tmp_path / "kept")
    assert again.source.label_counts == COUNTS
    probabilities = (each.predict(task.query_features).probabilities for each in (posterior, again))
    torch.testing.assert_close(*probabilities)
    more = task.with_support(torch.tensor([0, 30, 30]))  # class 0 once, class 1 twice
    assert update(again, more).posterior.source.label_counts == (31, 3, 30, 1, 30, 1)
    fewer = update(load_posterior(tmp_path / "kept"), None, remove=["class 1"]).posterior
    assert fewer.source.label_counts == (30, 30, 1, 30, 1)
    assert fewer.class_offset is not None and len(fewer.class_offset) == 5


def test_unequal_numbers_are_said_and_shots_cut_them() -> None:
    (said,) = (note for note in few_shot(problem(), None, 0).notes if "unequal" in note)
    assert "from 1 ('class 1') to 30 ('class 0') a class" in said and "--class-prior even" in said
    assert few_shot(problem((4,) * 6), None, 0).notes == problem((4,) * 6).notes
    cut = few_shot(problem(), 4, 0)
    assert torch.bincount(cut.support_labels).tolist() == [4, 1, 4, 1, 4, 1]
    assert any("fewer than the 4 images asked for" in note for note in cut.notes)


def test_an_unknown_prior_is_refused() -> None:
    with pytest.raises(UserError, match=r"--class-prior evn.*Did you mean 'even'"):
        FitSettings(class_prior="evn")
