"""Fits and updates in folders: stopped at any moment they leave a posterior, and go on to the same bits."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from small_problems import tiny_task
from streams import TASK, described, piece, steady, stored

from bayes_clip import cli
from bayes_clip.data.feature_file import load_feature_task, save_feature_task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import dated, load_held_out
from bayes_clip.storage import checkpoint, durable
from bayes_clip.storage import folder as storage
from bayes_clip.storage.durable import fit_into, update_into
from bayes_clip.storage.folder import load_posterior
from bayes_clip.streaming import Pace

SINGLE = steady(batch_size=1)
FIRST, MORE = piece(0, 12, partial=False), piece(12, 24)


class Killed(BaseException):
    """Stands for the end of the process: nothing after it is done."""


def names(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


@pytest.fixture
def fitted(tmp_path: Path) -> Path:
    fit_into(tmp_path / "posterior", FIRST, SINGLE)
    return tmp_path / "posterior"


def killed_at(step: int, run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run until the `step`-th time that a file gets its name or goes; whether it came so far."""
    real, calls = {"replace": Path.replace, "unlink": Path.unlink}, []

    def stopping(name: str) -> Callable[..., Any]:
        def call(path: Path, *arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) >= step:
                raise Killed
            return real[name](path, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in real:
            patch.setattr(Path, name, stopping(name))
        try:
            run()
        except Killed:
            return True
    return False


def test_a_fit_stopped_at_renames_goes_on_to_the_same_bits(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over an older posterior, which is there until the new one is."""
    task, before = piece(0, 6, partial=False), stored(fitted)
    fit_into(tmp_path / "whole", task, SINGLE)
    for step in range(1, 99, 2):
        folder = copytree(fitted, tmp_path / str(step))
        stopped = killed_at(
            step, lambda to=folder: fit_into(to, task, SINGLE, checkpoint_every=3), monkeypatch
        )
        assert load_posterior(folder).source.support_rows in (6, 12)
        assert stored(folder) in (before, stored(tmp_path / "whole"))
        fit_into(folder, task, SINGLE, resume=True)
        assert stored(folder) == stored(tmp_path / "whole")
        assert described(folder)["held_out"] == described(tmp_path / "whole")["held_out"]
        assert names(folder) == ["held_out", "posterior", "posterior.json"]
        if not stopped:
            break
    assert 15 < step < 98


def test_an_update_stopped_at_any_rename_goes_on_and_never_learns_twice(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, before = piece(12, 16), stored(fitted)
    update_into(fitted, more, out=tmp_path / "whole")
    for step in range(1, 99):
        folder = copytree(fitted, tmp_path / str(step))
        stopped = killed_at(step, lambda to=folder: update_into(to, more, checkpoint_every=2), monkeypatch)
        assert stored(folder) in (before, stored(tmp_path / "whole"))
        update_into(folder, more, resume=True)
        assert stored(folder) == stored(tmp_path / "whole")
        assert load_posterior(folder).source.support_rows == 16
        assert update_into(folder, more, resume=True) is None  # it had finished
        assert names(folder) == ["held_out", "posterior", "posterior.json"]
        if not stopped:
            break
    assert 15 < step < 98


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    """Starts processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["bayes_clip.cli", "bayes_clip.storage.durable", "bayes_clip.data.resolve"]
    )
    yield context


def killed_after(batches: int, context: Any, folder: Path, arguments: list[Any]) -> None:
    """Run a command line in another process and kill it once its checkpoint holds so many batches."""
    process = context.Process(target=cli.main, args=([str(argument) for argument in arguments],))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while reached(folder) < batches:
            assert process.is_alive() and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.002)  # the cores are for the other process
        os.kill(process.pid, signal.SIGSTOP)  # it holds its lock, however long we take
        with pytest.raises(UserError, match="another process is writing there"):
            fit_into(folder, FIRST, SINGLE)
        with pytest.raises(UserError, match="another process is writing there"):
            storage.save_posterior(durable.fit(FIRST, SINGLE).posterior, folder)
    finally:
        process.kill()
        process.join()


def reached(folder: Path) -> int:
    try:
        cursor = json.loads((folder / checkpoint.JSON_NAME).read_text()).get("cursor")
    except FileNotFoundError:
        return -1
    return 0 if cursor is None else int(cursor["index"])


def test_kill_9_in_another_process(processes: Any, tmp_path: Path) -> None:
    """A fit is killed twice and an update of it once, each while a second writer is refused."""
    long = tiny_task(shots=24, features=5)
    save_feature_task(long, tmp_path / "all.npz")
    save_feature_task(piece(0, 48, long), tmp_path / "first.npz")
    given = ("--order", "given", "--batch-size", 1, "--prior-variance", 0.02, "--predictive", "plug_in")
    given = (*given, "--rule", "plain")
    whole, folder = tmp_path / "whole", tmp_path / "posterior"

    first = load_feature_task(tmp_path / "first.npz")
    fit_into(whole, first, SINGLE)
    command = ["fit", tmp_path / "first.npz", "--out", folder, "--checkpoint-every", 1, *given]
    killed_after(3, processes, folder, command)
    assert not (folder / storage.JSON_NAME).exists()
    killed_after(20, processes, folder, [*command, "--resume"])
    assert fit_into(folder, first, SINGLE, resume=True).steps == ()
    assert stored(folder) == stored(whole)

    before = stored(folder)
    command = ["update", folder, tmp_path / "all.npz", "--checkpoint-every", 1]
    killed_after(30, processes, folder, command)
    assert stored(folder) == before and load_posterior(folder).source.support_rows == 48
    more = load_feature_task(tmp_path / "all.npz", partial=True)
    assert update_into(folder, more, resume=True).steps == ()
    update_into(whole, more)
    assert stored(folder) == stored(whole)


def test_what_was_chosen_before_it_stopped_is_not_chosen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(SINGLE, batch_size=4, prior_variance=None, predictive="auto", process_noise="auto")
    fit_into(tmp_path / "whole", FIRST, chosen)
    folder = tmp_path / "stopped"
    assert killed_at(6, lambda: fit_into(folder, FIRST, chosen, checkpoint_every=1), monkeypatch)

    def again(*arguments: Any, **options: Any) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr("bayes_clip.fitting.choose", again)
    monkeypatch.setattr("bayes_clip.fitting._drift", again)
    resumed = fit_into(folder, FIRST, chosen, resume=True)
    assert resumed is not None and resumed.drift is not None and resumed.tuned.profile
    assert stored(folder) == stored(tmp_path / "whole")
    for name in ("settings", "prior_variance", "covariance_scale"):
        assert described(folder)["source"][name] == described(tmp_path / "whole")["source"][name]


def test_pieces_through_files_are_one_fit(tmp_path: Path) -> None:
    fit_into(tmp_path / "whole", TASK, SINGLE)
    fit_into(tmp_path / "pieces", piece(0, 8, partial=False), SINGLE)
    update_into(tmp_path / "pieces", piece(8, 20))
    update_into(tmp_path / "pieces", piece(20, 24))
    assert stored(tmp_path / "pieces") == stored(tmp_path / "whole")
    assert described(tmp_path / "pieces")["stream"] == {"steps": 24, "updates": 2}


def test_a_new_folder_leaves_the_old_one_alone(fitted: Path, tmp_path: Path) -> None:
    before = stored(fitted)
    update_into(fitted, MORE, out=tmp_path / "newer")
    assert stored(fitted) == before != stored(tmp_path / "newer")
    assert update_into(fitted, MORE, out=tmp_path / "newer", resume=True) is None
    again = update_into(fitted, MORE, out=tmp_path / "newer", pace=Pace(order="random"), resume=True)
    assert again is not None and again.rows == 12


def test_the_same_labels_may_be_learned_twice_but_not_by_resuming(fitted: Path) -> None:
    for updates in (1, 2):
        update_into(fitted, MORE)
        assert load_posterior(fitted).stream.updates == updates
    assert update_into(fitted, MORE, resume=True) is None


def test_what_was_held_out_stays_and_says_that_it_dates_from_the_fit(fitted: Path) -> None:
    posterior, before = load_posterior(fitted), load_held_out(fitted)
    assert before is not None and dated(posterior, before) == ()
    update_into(fitted, MORE)
    after = load_held_out(fitted)
    assert after is not None and (after.novelty == before.novelty).all()
    (remark,) = dated(load_posterior(fitted), after)
    assert "fit to 12 labels, 1 update ago" in remark
    update_into(fitted, None, remove=[TASK.class_names[0]])
    assert "2 updates ago" in dated(load_posterior(fitted), after)[0]


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "other labels": (lambda folder: update_into(folder, piece(12, 23), resume=True), "is of another run"),
    "another pace": (
        lambda folder: update_into(folder, MORE, pace=Pace(batch_size=2), resume=True),
        "is of another run",
    ),
    "a fit": (lambda folder: fit_into(folder, FIRST, SINGLE, resume=True), "is of another run"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_checkpoint_of_another_run_is_refused(
    what: str, fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage_made = described(fitted)["made"]
    assert killed_at(6, lambda: update_into(fitted, MORE, checkpoint_every=1), monkeypatch)
    path = fitted / storage.JSON_NAME  # as if another fit had made it: else the fit has finished
    other = {**described(fitted), "made": {**storage_made, "request": "x"}}
    path.write_text(json.dumps({**other, "seal": storage._seal(other)}))
    before = {file.name: file.read_bytes() for file in fitted.iterdir()}
    run, message = REFUSED[what]
    with pytest.raises(UserError, match=message):
        run(fitted)
    assert {file.name: file.read_bytes() for file in fitted.iterdir()} == before


def test_a_damaged_checkpoint_is_refused_and_a_new_run_ends_it(
    fitted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed_at(9, lambda: update_into(fitted, MORE, checkpoint_every=1), monkeypatch)
    path = fitted / json.loads((fitted / checkpoint.JSON_NAME).read_text())["tensors"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"was truncated or changed .*leave --resume out to begin anew"):
        update_into(fitted, MORE, resume=True)
    (fitted / checkpoint.JSON_NAME).write_text("{")
    with pytest.raises(UserError, match=r"checkpoint\.json: is damaged"):
        update_into(fitted, MORE, resume=True)
    assert update_into(fitted, MORE) is not None
    assert names(fitted) == ["held_out", "posterior", "posterior.json"]


def test_what_cannot_be_is_refused_and_nothing_changes(fitted: Path, tmp_path: Path) -> None:
    before = {file.name: file.read_bytes() for file in fitted.iterdir()}
    broken = replace(MORE, support_features=MORE.support_features[:, :4])
    other = replace(MORE, support_labels=MORE.support_labels * 0)
    with pytest.raises(UserError, match="features of 4 columns where the posterior takes 5"):
        update_into(fitted, broken)
    with pytest.raises(UserError, match="holds 12 rows of it"):
        update_into(fitted, other, remove=[TASK.class_names[0]])
    with pytest.raises(UserError, match="no such order"):
        update_into(fitted, MORE, pace=Pace(order="sorted"))
    with pytest.raises(UserError, match="nothing to update"):
        update_into(fitted, None)
    with pytest.raises(UserError, match="no posterior there"):
        update_into(tmp_path / "nowhere", MORE)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match="map keeps no checkpoints"):
        fit_into(tmp_path / "map", FIRST, steady(engine="map"), resume=True)
    assert not (tmp_path / "map").exists()
    assert {file.name: file.read_bytes() for file in fitted.iterdir()} == before
    fit_into(tmp_path / "map", FIRST, steady(engine="map"))
    with pytest.raises(UserError, match="map does not stream; fit again with --engine ekf"):
        update_into(tmp_path / "map", MORE)
