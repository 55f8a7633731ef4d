"""One writer per folder, by a lock that ends with its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bayes_clip.errors import UserError
from bayes_clip.storage.lock import locked

HOLDING = """
import sys
from bayes_clip.storage.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of a folder until its input ends."""
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "posterior")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_process_is_refused_and_a_killed_one_leaves_no_lock(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / "posterior"
    with pytest.raises(UserError, match=r"posterior: another process is writing there; wait"), locked(folder):
        pass
    holder.kill()
    holder.wait()
    assert list(folder.iterdir()) == []  # no lock file that somebody would have to judge
    with locked(folder) as held:
        assert held == folder


def test_it_binds_within_a_process_too_and_ends_with_its_block(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UserError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()
    with locked(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    assert (tmp_path / "new").exists()


def test_a_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path / "file" / "inside"):
        pass


def test_where_there_is_no_lock_a_warning_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.warns(UserWarning, match="cannot be locked on this system"), locked(tmp_path):
        pass
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.warns(UserWarning, match="cannot be locked on this system"), locked(tmp_path):
        pass
