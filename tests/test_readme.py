"""The README's code runs, and its numbers are those that the script wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    names: dict[str, object] = {}
    exec(code, names)
    assert (tmp_path / "posterior" / "posterior.json").is_file()
    assert (tmp_path / "runs" / "notebook" / "report.html").is_file()


def test_numbers_are_those_of_the_script() -> None:
    tables = re.findall(r"<!-- (\w+): begin -->\n(.*?)<!-- \1: end -->", README, re.DOTALL)
    assert tables
    for name, table in tables:
        assert table == (ROOT / "analysis" / "results" / f"{name}.md").read_text(encoding="utf-8")


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
