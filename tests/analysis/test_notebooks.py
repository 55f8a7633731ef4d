"""The notebooks: both halves of a pair say the same, nothing executed is kept, and all of them run."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from analysis.notebooks import paired

NOTEBOOKS = paired.scripts()


def named(path: Path) -> str:
    return path.stem


def test_there_are_the_six_that_the_readers_were_promised() -> None:
    assert [path.name[:3] for path in NOTEBOOKS] == [f"0{number}_" for number in range(1, 7)]
    assert {path.stem for path in paired.HERE.glob("*.ipynb")} == {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("script", NOTEBOOKS, ids=named)
def test_both_halves_hold_the_same_cells_and_no_output(script: Path) -> None:
    half = paired.read(paired.other_half(script))
    assert paired.cells(half) == paired.cells(paired.read(script)), "python -m analysis.notebooks --pair"
    assert not paired.has_output(half), "python -m analysis.notebooks --pair"
    assert half.metadata["jupytext"]["formats"] == "ipynb,py:percent"


@pytest.mark.parametrize("script", NOTEBOOKS, ids=named)
def test_each_asks_a_question_and_answers_it_in_short_cells(script: Path) -> None:
    notebook = paired.read(script)
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert prose[0].startswith("# ")
    assert any("**The question.**" in text for text in prose)
    assert any("**The answer.**" in text for text in prose)
    assert max(len(cell.source.splitlines()) for cell in notebook.cells) <= 45


@pytest.mark.parametrize("script", NOTEBOOKS, ids=named)
def test_links_lead_somewhere(script: Path) -> None:
    text = "\n".join(cell.source for cell in paired.read(script).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (script.parent / link).exists()] == []


def test_a_half_that_lags_behind_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "01_new.py"
    script.write_text("# %% [markdown]\n# # Title\n\n# %%\n1 + 1\n", encoding="utf-8")
    assert paired.pair(script) and not paired.pair(script)
    half = nbformat.read(paired.other_half(script), as_version=4)
    half.cells[1].outputs = [nbformat.v4.new_output("stream", text="2")]
    nbformat.write(half, paired.other_half(script))
    assert paired.has_output(paired.read(paired.other_half(script)))
    assert paired.pair(script) and not paired.has_output(paired.read(paired.other_half(script)))


@pytest.mark.notebooks
@pytest.mark.parametrize("script", NOTEBOOKS, ids=named)
def test_it_runs_from_top_to_bottom(script: Path, tmp_path: Path) -> None:
    out = tmp_path / paired.other_half(script).name
    paired.execute(script, out)
    ran = nbformat.read(out, as_version=4)
    said = [output for cell in ran.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in said)
    errors = [output.text for output in said if output.output_type == "stream" and output.name == "stderr"]
    assert errors == [], "a notebook warns of nothing"
