"""Running the command line as a user would, in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bayes_clip.cli import main


class Outcome(NamedTuple):
    status: int
    output: str
    errors: str


Cli = Callable[..., Outcome]


def commands(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int = 160
) -> Cli:
    """What runs a command line in the folder `place`."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", str(columns))

    def command(*arguments: Any) -> Outcome:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return command
