"""Prediction sets against a naive twin, and their guarantee on data that is exchangeable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions import Normal
from scipy.stats import binom
from small_problems import EXACT, tiny_task

import bayes_clip as bc
from bayes_clip.errors import UserError
from bayes_clip.evaluation.conformal import (
    _of_fold,
    conformal_counts,
    digest_of,
    guaranteed_coverage,
    least_rows,
    members_of,
    prediction_sets,
    strangeness,
)
from bayes_clip.evaluation.holdout import HeldOut, hold_out, load_held_out, save_with_held_out, sets_of
from bayes_clip.evaluation.verdicts import judge

CLASSES, FOLDS = 3, 4
NEVER = 1e-4  # chance that a sound method fails one of the tests here
SETTINGS = bc.FitSettings(engine="laplace", prior_variance=0.3, dtype="float64")


def nearest(seen: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Distance (n, C) of rows to the nearest of each class that was seen: nothing strange about those."""
    distances = np.linalg.norm(rows[:, None] - seen, axis=2)
    return np.stack([distances[:, labels == index].min(1, initial=99.0) for index in range(CLASSES)], axis=1)


def drawn(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Exchangeable rows: noise in 5 dimensions around one direction per class."""
    labels = generator.integers(CLASSES, size=count)
    return 1.5 * np.eye(CLASSES, 5)[labels] + generator.normal(size=(count, 5)), labels


def held(repeats: int, coverage: float, count: int, crossed: bool) -> int:
    """How often the set of one new row holds its class, out of `repeats` independent draws."""
    generator, hits = np.random.default_rng(0), 0
    for _ in range(repeats):
        rows, labels = drawn(generator, count + 1)
        new, truth, rows, labels = rows[:1], labels[0], rows[1:], labels[1:]
        fold = np.arange(count) % FOLDS
        own, scores = np.empty(count), []
        for index in range(FOLDS):
            out = fold == index
            kept = ~out if crossed else np.ones(count, dtype=bool)
            own[out] = nearest(rows[kept], labels[kept], rows[out])[np.arange(out.sum()), labels[out]]
            scores.append(nearest(rows[kept], labels[kept], new))
        inside = members_of(conformal_counts(fold, own, np.stack(scores)), count, coverage)
        hits += bool(inside[0, truth])
    return hits


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_class_as_often_as_is_guaranteed(coverage: float) -> None:
    repeats, count = 600, 40
    floor = guaranteed_coverage(coverage, count, FOLDS)
    assert held(repeats, coverage, count, crossed=True) >= binom.ppf(NEVER, repeats, floor)
    # the same sets from fits that saw the rows they score do not keep it: the test can fail
    assert held(repeats, coverage, count, crossed=False) < binom.ppf(NEVER, repeats, floor)


def test_scores_that_learn_nothing_hold_exactly_what_is_asked() -> None:
    # split conformal: P(held) = ⌊(1 − α)(N + 1)⌋ / (N + 1) or one rank more, whatever the distribution
    repeats, count, coverage = 4000, 29, 0.9
    generator = np.random.default_rng(1)
    own, new = generator.exponential(size=(repeats, count)), generator.exponential(size=(repeats, 1, 1))
    fold = np.arange(count) % FOLDS
    hits = sum(
        bool(members_of(conformal_counts(fold, mine, np.repeat(one, FOLDS, axis=0)), count, coverage)[0])
        for mine, one in zip(own, new, strict=True)
    )
    low, high = binom.ppf(NEVER, repeats, 27 / 30), binom.isf(NEVER, repeats, 27 / 30)
    assert low <= hits <= high


scores = st.lists(st.integers(0, 9), min_size=2, max_size=30)


@given(scores, st.lists(st.integers(0, 9), min_size=3, max_size=3), st.floats(0.05, 0.99))
@settings(max_examples=80, deadline=None)
def test_counts_and_members_equal_their_definition(own: list, new: list, coverage: float) -> None:
    fold = np.arange(len(own)) % 3
    counts = conformal_counts(fold, np.array(own, dtype=float), np.array(new, dtype=float)[:, None])
    wanted = sum(score >= new[part] for score, part in zip(own, fold, strict=True))
    assert counts.tolist() == [wanted]
    (inside,) = members_of(counts, len(own), coverage)
    if abs(1 + wanted - (1 - coverage) * (len(own) + 1)) > 1e-6:
        assert inside == ((1 + wanted) / (len(own) + 1) > 1 - coverage)


@given(scores, st.floats(0.05, 0.9), st.floats(0.0, 0.09), st.randoms())
@settings(max_examples=60, deadline=None)
def test_more_coverage_gives_larger_sets_and_the_order_of_rows_none(
    own: list, coverage: float, more: float, random: object
) -> None:
    fold, values = np.arange(len(own)) % 2, np.array(own, dtype=float)
    new = np.linspace(-1, 10, 24).reshape(2, 12)
    counts = conformal_counts(fold, values, new)
    inside, wider = members_of(counts, len(own), coverage), members_of(counts, len(own), coverage + more)
    assert (wider | ~inside).all()
    order = list(range(len(own)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert (conformal_counts(fold[order], values[order], new) == counts).all()


def test_whole_ranks_are_not_lost_to_rounding() -> None:
    assert least_rows(0.9) == 9 and least_rows(0.95) == 19 and least_rows(0.99) == 99
    for coverage, count in ((0.9, 9), (0.95, 19), (0.99, 99), (0.8, 4)):
        assert members_of(np.array([0]), count, coverage).tolist() == [False]
        assert members_of(np.array([0]), count - 1, coverage).tolist() == [True]


def test_the_guarantee_is_the_theorem_s() -> None:
    n, k, alpha = 188, 4, 0.1
    wanted = 1 - 2 * alpha - min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1))
    assert guaranteed_coverage(0.9, n, k) == pytest.approx(wanted, abs=1e-12)
    assert guaranteed_coverage(0.5, 4, 2) == 0.0


def naive_sets(task: bc.Task, coverage: float) -> np.ndarray:
    """The definition, by fits that predict their left-out rows and the queries as `plug_in` does."""
    shots = torch.cat([torch.arange(int((task.support_labels == index).sum())) for index in range(CLASSES)])
    order = torch.argsort(task.support_labels, stable=True)
    fold = torch.empty_like(order)
    fold[order] = shots % 4
    own, new = {}, {}
    for index in range(4):
        out = torch.nonzero(fold == index)[:, 0]
        fitted = bc.fit(task.with_support(fold != index), replace(SETTINGS, predictive="plug_in")).posterior
        inside = fitted.predict(task.support_features[out]).probabilities
        for row, probabilities in zip(out.tolist(), inside, strict=True):
            own[row] = -float(probabilities[task.support_labels[row]].log())
        new[index] = -fitted.predict(task.query_features).probabilities.log()
    count = len(own)
    sets = np.zeros((len(task.query_labels), CLASSES), dtype=bool)
    for query in range(len(sets)):
        for label in range(CLASSES):
            at_least = sum(own[row] >= float(new[int(fold[row])][query, label]) for row in own)
            sets[query, label] = (1 + at_least) / (count + 1) > 1 - coverage + EXACT
    return sets


def test_sets_of_a_posterior_equal_naive_ones() -> None:
    task = tiny_task(classes=CLASSES, shots=5)
    posterior = bc.fit(task, SETTINGS).posterior
    held_out = hold_out(task, posterior)
    assert held_out is not None and held_out.fits is not None
    sets = prediction_sets(posterior, held_out.fits, task.query_features, 0.8)
    assert (sets.members == naive_sets(task, 0.8)).all()
    assert 0 < sets.sizes.mean() < CLASSES  # the comparison is of something
    in_pieces = prediction_sets(posterior, held_out.fits, task.query_rows, 0.8, budget=2000)
    assert (in_pieces.members == sets.members).all()


def test_strangeness_is_that_of_the_mean_weights() -> None:
    task = tiny_task(classes=CLASSES, shots=3)
    posterior = bc.fit(task, replace(SETTINGS, predictive="plug_in")).posterior
    wanted = -posterior.predict(task.query_features).probabilities.log()
    assert float((strangeness(posterior, task.query_rows) - wanted).abs().max()) < EXACT


def test_verdicts_name_the_set_with_the_predicted_class_first() -> None:
    task = tiny_task(classes=CLASSES, shots=5)
    posterior = bc.fit(task, SETTINGS).posterior
    held_out = hold_out(task, posterior)
    sets = sets_of(posterior, held_out, task.query_rows, 0.6)
    prediction = posterior.predict(task.query_rows)
    verdicts = judge(prediction, task.class_names, None, held_out, sets=sets)
    winners = prediction.probabilities.argmax(1).tolist()
    for row, inside, winner in zip(verdicts.rows, sets.members, winners, strict=True):
        names = str(row["set"]).split("; ")
        assert names[0] == row["class"] and len(names) == row["set_size"]
        known = {task.class_names[index] for index in np.flatnonzero(inside)}
        assert set(names) == known | {task.class_names[winner]}
    assert any("cross-conformal over 4 folds" in note for note in verdicts.notes)


def test_too_few_rows_say_so_and_leave_every_class_in() -> None:
    task = tiny_task(classes=CLASSES, shots=2)
    posterior = bc.fit(task, SETTINGS).posterior
    sets = sets_of(posterior, hold_out(task, posterior), task.query_rows, 0.9)
    assert sets.members.all() and "6 labels are too few" in sets.notes[0] and "takes 9" in sets.notes[0]


def test_sets_survive_the_disk_and_are_refused_without_fits(tmp_path: Path) -> None:
    task = tiny_task(classes=CLASSES, shots=4)
    posterior = bc.fit(task, SETTINGS).posterior
    held_out = hold_out(task, posterior)
    assert held_out is not None
    save_with_held_out(posterior, held_out, tmp_path)
    read = load_held_out(tmp_path)
    known = bc.load_posterior(tmp_path)
    before = sets_of(posterior, held_out, task.query_rows, 0.8)
    assert (sets_of(known, read, task.query_rows, 0.8).members == before.members).all()
    older = HeldOut(held_out.novelty, held_out.confidence, held_out.correct)
    save_with_held_out(posterior, older, tmp_path)
    with pytest.raises(UserError, match="an earlier version"):
        sets_of(known, load_held_out(tmp_path), task.query_rows, 0.8)
    with pytest.raises(UserError, match="one shot per class"):
        sets_of(known, None, task.query_rows, 0.8)


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, float("nan")])
def test_shares_that_are_none_are_refused(coverage: float) -> None:
    task = tiny_task(classes=CLASSES, shots=2)
    posterior = bc.fit(task, SETTINGS).posterior
    with pytest.raises(UserError, match="--coverage"):
        sets_of(posterior, None, task.query_rows, coverage)
    with pytest.raises(UserError, match="--false-alarms"):
        HeldOut(np.ones(3), np.ones(3), np.ones(3)).novelty_limit(coverage)


def test_classes_that_came_since_are_refused() -> None:
    task = tiny_task(classes=CLASSES, shots=4)
    posterior = bc.fit(task, bc.FitSettings(prior_variance=0.3)).posterior
    held_out = hold_out(task, posterior)
    fewer = bc.update(posterior, remove=[task.class_names[0]]).posterior
    with pytest.raises(UserError, match="classes came or went"):
        sets_of(fewer, held_out, task.query_rows, 0.8)
    assert digest_of(("a", "b")).tolist() != digest_of(("b", "a")).tolist()


def test_programs_that_keep_labelled_rows_keep_those_of_the_other_folds() -> None:
    class Cached(bc.AdapterModel):
        """Class means of the support rows are the prior mean: leaving a fold out changes the program."""

        uses_support = True

        def prior(self) -> dict:
            support = self.context.support
            assert support is not None
            chosen = torch.nn.functional.one_hot(support.labels, CLASSES).to(support.inputs)
            means = chosen.mT @ support.inputs / chosen.sum(0)[:, None]
            self.means = means
            return {"shift": Normal(torch.zeros_like(means), self.prior_variance**0.5).to_event(2)}

        def logits(self, weights: dict, inputs: torch.Tensor) -> torch.Tensor:
            if not hasattr(self, "means"):
                self.prior()
            return 8.0 * inputs @ (weights["shift"] + self.means).mT

    task = tiny_task(classes=CLASSES, shots=4)
    posterior = bc.fit(task, replace(SETTINGS, engine="map"), program=Cached).posterior
    held_out = hold_out(task, posterior)
    assert held_out is not None and held_out.fits is not None
    # scores of support rows as if they were new: by the fit without their own fold, those that were held out
    fits = held_out.fits
    for index in range(len(fits.weights)):
        out = np.flatnonzero(fits.fold == index)
        inputs = posterior.as_inputs(task.with_support(torch.from_numpy(out)).support_rows)
        own = _of_fold(posterior, fits, index)(inputs).numpy()[np.arange(len(out)), task.support_labels[out]]
        np.testing.assert_allclose(own, fits.strangeness[out], atol=EXACT)


@given(st.integers(1, 60), st.sampled_from([0.01, 0.05, 0.2, 0.5]))
@settings(max_examples=60, deadline=None)
def test_the_novelty_limit_is_a_rank(count: int, rate: float) -> None:
    novelty = np.random.default_rng(count).permutation(count).astype(float)
    limit = HeldOut(novelty, novelty, novelty).novelty_limit(rate)
    above = int((novelty > limit.value).sum())
    # a new row is equally likely to have any of count + 1 ranks: above + 1 of them lie over the limit
    assert (above + 1) / (count + 1) <= limit.false_alarms + 1e-12
    if limit.false_alarms == rate:
        assert (above + 2) / (count + 1) > rate - 1e-12
    else:
        assert above == 0 and limit.false_alarms > rate
