"""A comparison on disk: all of it or nothing, and never over what is not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bayes_clip.errors import UserError
from bayes_clip.evaluation.results import Comparison
from bayes_clip.report import write
from bayes_clip.report.write import OUR_FILES, check_writable, whole_folder, write_comparison


def names(folder: Path) -> set[str]:
    return {item.name for item in folder.iterdir()}


def test_everything_is_written_and_nothing_is_left_over(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(comparison, tmp_path / "new" / "demo")
    assert names(tmp_path / "new" / "demo") == OUR_FILES
    assert names(tmp_path / "new") == {"demo"}
    figures = names(tmp_path / "new" / "demo" / "figures")
    stems = {"engines", "reliability", "risk_coverage", "novelty", "pictures"}
    assert figures >= {f"{stem}_first_4_shots.{ending}" for stem in stems for ending in ("png", "svg")}
    assert not {name for name in figures if name.startswith(("novelty_second", "pictures_second"))}
    page = (tmp_path / "new" / "demo" / "report.html").read_text()
    assert page.rstrip().endswith("</html>")


def test_earlier_results_are_replaced_only_after_success(tmp_path: Path) -> None:
    target = tmp_path / "demo"
    with whole_folder(target) as folder:
        (folder / "metrics.csv").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(target) as folder:
        (folder / "metrics.csv").write_text("half")
        raise RuntimeError
    assert (target / "metrics.csv").read_text() == "old"
    with whole_folder(target) as folder:
        (folder / "config.json").write_text("new")
    assert names(target) == {"config.json"} and names(tmp_path) == {"demo"}


def test_folder_may_exist_empty_and_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_folder(tmp_path / "link") as folder:
        (folder / "metrics.csv").write_text("x")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "real") == {"metrics.csv"}


def test_folder_with_something_else_is_refused_and_kept(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        write_comparison(comparison, tmp_path)
    assert names(tmp_path) == {"thesis.tex"}


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"^--out .*give (a|another) folder$"):
            check_writable(target)
    assert names(tmp_path) == {"file"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_unwritable_place_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be written to"):
        check_writable("/proc/self/demo")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert names(tmp_path) == set()


def test_failure_while_drawing_leaves_nothing(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Comparison) -> None:
        raise RuntimeError("no pencil")

    monkeypatch.setattr(write, "draw", fail)
    with pytest.raises(RuntimeError, match="pencil"):
        write_comparison(comparison, tmp_path / "demo")
    assert names(tmp_path) == set()


def test_comparison_without_runs_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to report"):
        write_comparison(Comparison((), comparison.tasks, {}), tmp_path / "demo")
    assert names(tmp_path) == set()
