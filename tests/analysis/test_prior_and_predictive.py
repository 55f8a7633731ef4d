"""The studies of priors, predictives and corrupted pictures: on a toy, and their pieces by hand."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_problems import tiny_task

import bayes_clip as bc
from bayes_clip.data.rows import Pictures
from bayes_clip.data.task import make_task
from bayes_clip.errors import UserError
from bayes_clip.inference import engines

ANALYSIS = Path(__file__).parents[2] / "analysis"


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ANALYSIS))  # as python analysis/x.py does
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def task() -> bc.Task:
    return tiny_task(classes=3, shots=4, queries=15, ood=True)


def test_a_prior_shaped_by_nothing_is_the_linear_probe(task: bc.Task) -> None:
    program = load("prior_beliefs").shaped(torch.eye(task.num_features) * 7, task.support_features)
    settings = bc.FitSettings(prior_variance=0.05, dtype="float64", predictive="plug_in")
    ours, plain = (
        bc.fit(task, settings, program=kind).posterior.predict(task.query_features)
        for kind in (program, None)
    )
    assert torch.allclose(ours.probabilities, plain.probabilities, atol=1e-6)
    assert torch.allclose(ours.novelty, plain.novelty, rtol=1e-4)


def test_shaped_priors_start_from_zero_shot_with_the_same_spread_of_logits(task: bc.Task) -> None:
    zero = bc.fit(task, bc.FitSettings(engine="zero_shot")).posterior
    for arm, program in load("prior_beliefs").shaped_programs(task).items():
        settings = bc.FitSettings(engine="zero_shot", prior_variance=0.02)
        shaped = bc.fit(task, settings, program=program).posterior
        wanted = zero.predict(task.query_features).probabilities
        assert torch.allclose(shaped.predict(task.query_features).probabilities, wanted, atol=1e-5), arm
        read = shaped.logits.program
        spread = (read.design(task.support_features).square() @ read.prior_variance.mT).mean()
        assert float(spread) == pytest.approx(task.logit_scale**2 * 0.02, rel=1e-4), arm


def test_powers_of_the_spread_are_inverse_to_each_other() -> None:
    power, rows = load("prior_beliefs").power_of_spread, torch.randn(30, 5, dtype=torch.float64)
    assert torch.allclose(power(rows, 0.5) @ power(rows, -0.5), torch.eye(5).double(), atol=1e-9)
    assert float((power(rows, 0.5) @ power(rows, 0.5)).trace()) == pytest.approx(5)


def test_logits_take_the_range_of_zero_shot_and_keep_their_winner() -> None:
    logits, reference = torch.randn(20, 4, dtype=torch.float64) * 9, torch.randn(20, 4, dtype=torch.float64)
    found = load("prior_points").in_range_of(logits, reference)
    ours, wanted = (side.amax(-1) - side.amin(-1) for side in (found, reference))
    assert torch.allclose(ours, wanted, atol=1e-9)
    assert (found.argmax(-1) == logits.argmax(-1)).all()


def test_a_temperature_is_that_of_left_out_rows(task: bc.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    points = load("prior_points")
    assert points.temperature_by_folds(bc.few_shot(task, 1, 0), 0.02) == 1.0  # nothing to leave out
    guesses = task.support_labels.clone()
    guesses[:3] = (guesses[:3] + 1) % 3  # 9 of 12 are right
    logits = 2.7 * torch.nn.functional.one_hot(guesses, 3).double()
    monkeypatch.setattr(points, "held_out", lambda *_: lambda _: (logits, logits))
    # confidence e^(m/T) / (e^(m/T) + 2) is to be 3/4
    assert points.temperature_by_folds(task, 0.02) == pytest.approx(2.7 / np.log(6), rel=0.03)


def test_draws_are_kept_and_not_done_again(
    task: bc.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "STEPS", 20)  # of VI
    monkeypatch.setattr(engines, "DRAFT_STEPS", 10)
    study = load("prior_and_predictive")
    first = study.study(task, [1, 2], [0], tmp_path)
    assert set(first.groupby("arm").size()) == {2} and {"ekf", "vi", "map + SaLS"} <= set(first["arm"])

    def never(drawn: bc.Task, seed: int) -> None:
        raise AssertionError("done already")

    monkeypatch.setattr(study, "candidates", never)
    again = study.study(task, [2], [0], tmp_path)
    assert again["nll"].tolist() == first[first["shots"] == 2]["nll"].tolist()
    with pytest.raises(UserError, match="were made with query"):
        study.study(tiny_task(classes=3, shots=4, queries=9), [1], [0], tmp_path)

    default = bc.fit(bc.few_shot(task, 2, 0)).posterior.predict(task.query_features).probabilities
    labels = task.query_labels
    wanted = torch.nn.functional.nll_loss(default.log(), labels)
    assert again.set_index("arm")["nll"]["ekf"] == pytest.approx(float(wanted), abs=1e-6)
    tables = load("prior_tables")
    text = tables.conclusions(first) + tables.tables(first)
    assert "two questions, two scores" in text and "### tiny: ECE" in text
    assert len(tables.draw(first).axes) == 4


def test_targets_that_fail_are_named_and_losses_counted() -> None:
    tables = load("prior_tables")
    rows = []
    for shots, seed in ((shots, seed) for shots in (1, 4) for seed in range(3)):
        noise = 0.01 * seed
        for arm, nll, ece in (("ekf", 1.0, 0.05), ("map, best fixed", 1.006, 0.04), ("other", 0.9, 0.01)):
            place = {"task": "toy", "shots": shots, "seed": seed, "arm": arm}
            scores = {"accuracy": 0.5, "nll": nll + noise, "ece": ece, "outsiders_novelty": 0.965}
            rows.append({**place, **scores, "prior_variance": 1.0, "seconds": 0.0})
    table = pd.DataFrame(rows)
    for side in ("errors", "outsiders"):
        for doubt in ("confidence", "aleatoric", "epistemic"):
            table[f"{side}_{doubt}"] = 0.7
    table["errors_novelty"] = 0.7
    _, failed = tables.targets(table)
    assert failed == ["toy, 4 shots: NLL", "toy, 4 shots: ECE", "toy, 4 shots: AUROC"]
    text = tables.conclusions(table)
    assert "LOSES for certain at: nll at 1 shots, 1.010 against 0.910 of other" in text
    assert np.allclose(tables.difference(table, "other", "ekf", "nll"), -0.1)


def test_corrupted_pictures_are_asked_about_with_what_was_learned_from_clean_ones() -> None:
    study = load("corrupted_digits")
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 255, (3, 8, 8, 3))
    labels = np.arange(3).repeat(8)
    noise = generator.normal(0, 25, (24, 8, 8, 3))
    images = [
        Image.fromarray((centres[label] + each).clip(0, 255).astype(np.uint8))
        for label, each in zip(labels, noise, strict=True)
    ]

    def encode(pictures: Pictures, **_: object) -> torch.Tensor:
        rows = np.stack([np.asarray(each, dtype=np.float32).ravel() - 127 for each in pictures])
        return torch.from_numpy(rows)[:, ::7]

    pictures = Pictures(lambda number: images[number], tuple(range(24)))
    features = encode(pictures)
    made = make_task("toy", features, labels, features, labels, text_features=features[::8], logit_scale=10.0)
    with pytest.raises(UserError, match="no pictures to corrupt"):
        study.study([made], ["blur"], 2, [0])
    task = replace(made, encoder=SimpleNamespace(encode_images=encode), query_pictures=pictures)
    table = study.study([task], ["blur", "inversion"], 2, [0, 1])
    assert len(table) == (1 + 2 * 5) * 4 * 2
    clean = table[table["severity"] == 0]
    assert (clean["novelty_auroc"] == 0.5).all()
    drawn = bc.few_shot(task, 2, 1)
    said = bc.fit(drawn).posterior.predict(task.query_features).probabilities
    wanted = torch.nn.functional.nll_loss(said.log(), task.query_labels)
    ours = clean[(clean["arm"] == "ekf") & (clean["seed"] == 1)]["nll"]
    assert float(ours.iloc[0]) == pytest.approx(float(wanted), abs=1e-6)
    negative = table[(table["corruption"] == "inversion") & (table["severity"] == 5)]
    assert negative["accuracy"].max() < clean["accuracy"].min()
    grown = study.growth(table, "nll")
    assert (grown.loc["toy", "ekf"] > 0).all()
    assert "ekf's grows by" in study.conclusions(table) and "inversion" in study.summary(table)
    assert len(study.draw(table).axes) == 3
