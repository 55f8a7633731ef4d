from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from bayes_clip import progress
from bayes_clip.progress import track


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BEFORE_SHOWN", -1.0)


def test_items_pass_unchanged_and_silently_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_a_short_loop_shows_nothing_on_a_terminal() -> None:
    console = terminal()
    assert list(track([1, 2], "numbers", console=console)) == [1, 2]
    assert output(console) == ""


@pytest.mark.usefixtures("at_once")
def test_a_long_loop_shows_its_description_and_clears_up() -> None:
    console = terminal()
    assert list(track([1, 2], "numbers", console=console)) == [1, 2]
    assert "numbers" in output(console)
    assert progress._shown == []


@pytest.mark.usefixtures("at_once")
def test_a_loop_inside_a_shown_loop_stays_silent() -> None:
    outer, inner = terminal(), terminal()
    for _ in track(range(2), "outer", console=outer):
        assert list(track(range(2), "inner", console=inner)) == [0, 1]
    assert "outer" in output(outer)
    assert output(inner) == ""


@pytest.mark.usefixtures("at_once")
def test_the_bar_goes_away_when_the_loop_fails() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(track(failing(), "numbers", console=terminal()))
    assert progress._shown == []
