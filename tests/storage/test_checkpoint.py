"""When a checkpoint is due, whose it is, and what comes back from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_problems import small_problem

from bayes_clip.errors import UserError
from bayes_clip.inference import kalman
from bayes_clip.inference.drift import Drift, TriedNoise
from bayes_clip.inference.kalman import Batch
from bayes_clip.inference.rules import RULES
from bayes_clip.inference.stream import Course, Cursor, walk
from bayes_clip.storage import checkpoint
from bayes_clip.storage.checkpoint import Checkpoints, pending, remove_checkpoint, request_of
from bayes_clip.tuning import Candidate, Tuned

PROBLEM = small_problem(rows=9)
DATA = [Batch(PROBLEM.design[part], PROBLEM.labels[part]) for part in torch.arange(9).split(2)]


def beginning() -> Cursor:
    return Cursor(kalman.init(PROBLEM.mean, PROBLEM.variance, "class_block"))


def cursors(passes: int = 1) -> Iterator[Cursor]:
    for cursor, _ in walk(Course(DATA, RULES["plain"], passes=passes), beginning()):
        yield cursor


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only when told."""
    hands = SimpleNamespace(now=0.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: hands.now)
    return hands


def written(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("stop", [0, 3, 4, 5, 11])
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(passes: int, stop: int, tmp_path: Path) -> None:
    """At the beginning, within a pass, at its end (batches of 2, 2, 2, 2 and 1 row) and in the last one."""
    whole = list(cursors(passes))
    keeper = Checkpoints(tmp_path, "request", every=1)
    keeper.cursor(beginning())
    for cursor in whole[:stop]:
        keeper.reached(cursor)
    again = Checkpoints(tmp_path, "request", resume=True)
    assert again.resumed == (stop > 0)
    cursor = again.cursor(beginning())
    rest = [reached for reached, _ in walk(Course(DATA, RULES["plain"], passes=passes), cursor)]
    cursor, last = (rest or [cursor])[-1], whole[-1]
    assert torch.equal(cursor.state.belief.mean, last.state.belief.mean)
    assert torch.equal(cursor.state.belief.covariance, last.state.belief.covariance)
    assert cursor.state.steps == last.state.steps == 5
    for mine, its in zip(cursor.sites, last.sites, strict=True):
        assert torch.equal(mine.matrix, its.matrix) and torch.equal(mine.linear, its.linear)


def test_every_so_many_batches_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_at = []
    keeper = Checkpoints(tmp_path, "request", every=2)
    monkeypatch.setattr(
        Checkpoints,
        "write",
        lambda self, cursor: (written_at.append(cursor.index), setattr(self, "_batches", 0)),
    )
    for cursor in cursors():
        keeper.reached(cursor)
    assert written_at == [2, 4]


def test_else_writing_takes_at_most_a_twentieth_of_the_time(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state whose writing takes 3 seconds is written every 60; a small one every second at most."""
    cursor, keeper, times = next(cursors()), Checkpoints(tmp_path, "request"), []
    real = checkpoint.write_tensors

    def slow(*arguments: object) -> object:
        times.append(clock.now)
        clock.now += 3.0
        return real(*arguments)

    monkeypatch.setattr(checkpoint, "write_tensors", slow)
    for clock.now in range(200):
        before = clock.now
        keeper.reached(cursor)
        assert clock.now in (before, before + 3.0)
    assert times == [1.0, 64.0, 127.0, 190.0]


def test_a_large_state_waits_for_longer_before_its_first_checkpoint(
    tmp_path: Path, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cursor = next(cursors())
    size = sum(tensor.nbytes for tensor in (cursor.state.belief.mean, cursor.state.belief.covariance))
    monkeypatch.setattr(checkpoint, "BYTES_PER_SECOND", size / 2)  # two seconds to write it
    keeper = Checkpoints(tmp_path, "request")
    clock.now = 39.0
    keeper.reached(cursor)
    assert not written(tmp_path)
    clock.now = 41.0
    keeper.reached(cursor)
    assert "checkpoint.json" in written(tmp_path)


def test_what_was_chosen_is_kept(tmp_path: Path) -> None:
    drift = Drift(1e-3, (TriedNoise(0.0, -3.5, -math.inf), TriedNoise(1e-3, -3.1, -3.0)))
    tuned = Tuned(1 / 3, 0.1, (Candidate(1 / 3, 0.1, 0.7, 0.71), Candidate(1.0, 0.3, 0.8, 0.9)))
    keeper = Checkpoints(tmp_path, "request")
    assert keeper.tuned is None
    keeper.keep_tuned(tuned)
    keeper.keep_drift(drift)
    again = Checkpoints(tmp_path, "request", resume=True)
    assert again.tuned == tuned and again.drift == drift and not again.resumed
    keeper.write(next(cursors()))
    again = Checkpoints(tmp_path, "request", resume=True)
    assert again.tuned == tuned and again.resumed


def test_it_belongs_to_one_run_and_goes_with_it(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, "request", start="posterior")
    keeper.cursor(beginning())
    keeper.write(next(cursors()))
    assert pending(tmp_path, "request") == "posterior" and pending(tmp_path, "other") is None
    for other in ({"request": "other", "start": "posterior"}, {"request": "request", "start": "another"}):
        with pytest.raises(UserError, match=r"is of another run .*leave --resume out to begin anew"):
            Checkpoints(tmp_path, resume=True, **other)
    assert len(written(tmp_path)) == 2
    Checkpoints(tmp_path, "other").cursor(beginning())  # a run that begins ends what an earlier one left
    assert written(tmp_path) == {"checkpoint.json"} and pending(tmp_path, "request") is None
    remove_checkpoint(tmp_path)
    assert not written(tmp_path)


def test_a_state_of_another_kind_is_refused(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, "request")
    keeper.write(next(cursors()))
    again = Checkpoints(tmp_path, "request", resume=True)
    other = Cursor(kalman.init(PROBLEM.mean, PROBLEM.variance, "diagonal"))
    with pytest.raises(UserError, match=r"checkpoint\.json: was changed"):
        again.cursor(other)


def test_a_request_is_all_that_decides_the_result() -> None:
    tensors = {"features": torch.arange(4.0)}
    same = request_of({"a": 1, "b": (2, 3)}, tensors)
    assert request_of({"b": [2, 3], "a": 1}, {"features": torch.arange(4.0)}) == same
    others = [
        request_of({"a": 2, "b": [2, 3]}, tensors),
        request_of({"a": 1, "b": [2, 3]}, {"features": torch.arange(4.0).double()}),
        request_of({"a": 1, "b": [2, 3]}, {"features": torch.arange(4.0).reshape(2, 2)}),
        request_of({"a": 1, "b": [2, 3]}, {"labels": torch.arange(4.0)}),
        request_of({"a": 1, "b": [2, 3]}, {}),
    ]
    assert len({same, *others}) == 6
