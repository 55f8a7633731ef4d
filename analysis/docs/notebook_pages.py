"""Notebooks as pages: cells and, where an executed copy of the same cells is at hand, what came of them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from analysis.notebooks.paired import ROOT, cells, other_half, read, scripts

EXECUTED = ROOT / "runs" / "notebooks"
NOT_EXECUTED = (
    '!!! note "Not executed"\n    `make notebooks` runs it; then `make docs` shows what it prints and draws.'
)


@dataclass
class NotebookPage:
    """Markdown, and the pictures that it shows."""

    name: str
    title: str
    text: str
    pictures: dict[str, bytes] = field(default_factory=dict)


def notebook_pages(executed: Path = EXECUTED) -> list[NotebookPage]:
    """A page for every notebook, in reading order."""
    return [_page(script, executed / other_half(script).name) for script in scripts()]


def _page(script: Path, executed: Path) -> NotebookPage:
    notebook = read(script)
    title = re.match(r"# (.+)", notebook.cells[0].source)
    if title is None:
        raise ValueError(f"{script}: its first cell must begin with a title: # ...")
    page = NotebookPage(script.stem, title.group(1), "")
    parts = []
    was_executed = executed.is_file()
    if was_executed:
        ran = nbformat.read(executed, as_version=4)
        was_executed = cells(ran) == cells(notebook)
        notebook = ran if was_executed else notebook
    for number, cell in enumerate(notebook.cells):
        parts.append(cell.source if cell.cell_type == "markdown" else _code(cell, page))
        if number == 0:
            parts.append("" if was_executed else NOT_EXECUTED)
    page.text = "\n\n".join(filter(None, parts)) + "\n"
    return page


def _code(cell: NotebookNode, page: NotebookPage) -> str:
    source = re.sub(r"^%.*\n", "", cell.source)
    outputs = [_output(output, page) for output in cell.get("outputs", [])]
    return "\n\n".join(filter(None, [f"```python\n{source}\n```" if source else "", *outputs]))


def _output(output: NotebookNode, page: NotebookPage) -> str:
    if output.output_type == "stream":
        return f"```text\n{output.text.rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{page.name}_{len(page.pictures)}.png"
        page.pictures[name] = base64.b64decode(data["image/png"])
        return f"![What the cell above draws]({name})"
    if "text/html" in data:
        return re.sub(r"<style.*?</style>", "", str(data["text/html"]), flags=re.DOTALL).replace("\n\n", "\n")
    text = str(data.get("text/plain", "")).rstrip()
    return f"```text\n{text}\n```" if text else ""
