"""The studies as pages: every script of analysis/ with what it asks, and the tables and figures it wrote."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from analysis.docs.repository import ROOT

ANALYSIS = ROOT / "analysis"
RESULTS = ANALYSIS / "results"
INDEX = "analysis/index.md"  # where the index would stand in the repository: its links are relative to that


@dataclass(frozen=True)
class Study:
    """A script that writes results."""

    script: Path
    question: str
    prefixes: tuple[str, ...]  # of the files it writes, as its docstring names them


def all_studies() -> list[Study]:
    """Every script below analysis/ whose docstring says what it writes to results/."""
    found = []
    for script in sorted(ANALYSIS.glob("*.py")):
        text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        prefixes = tuple(dict.fromkeys(re.findall(r"results/([a-z0-9_]*[a-z0-9])", text)))
        if prefixes:
            found.append(Study(script, text.split("\n")[0], prefixes))
    return found


def study_of(result: str, studies: list[Study]) -> Study | None:
    """The study that wrote results/<result>.md: the one whose files begin most like it."""
    begins = [(len(each), study) for study in studies for each in study.prefixes if result.startswith(each)]
    return max(begins, key=lambda pair: pair[0])[1] if begins else None


def studies_page() -> str:
    """The index: a line for every study, and links to what it wrote."""
    studies = all_studies()
    results = sorted(RESULTS.glob("*.md"))
    lines = [
        "# Studies",
        "Every number in the documentation comes from one of these scripts. They use the package as anybody "
        "would. A result's page names its script, shows its table and figure, and links its numbers.",
        "| study | what it asks | results |\n|---|---|---|",
    ]
    for study in studies:
        own = [path for path in results if study_of(path.stem, studies) == study]
        links = ", ".join(
            f"[{path.stem.removeprefix(study.prefixes[0]).strip('_') or 'table'}](results/{path.name})"
            for path in own
        )
        lines[-1] += f"\n| [`{study.script.stem}`]({study.script.name}) | {study.question} | {links} |"
    lines.append("Speed: [benchmarks](benchmarks/README.md).")
    return "\n\n".join(lines) + "\n"


def result_page(path: Path, studies: list[Study]) -> str:
    """A result with a title, its script, its figure and its numbers, links relative to results/."""
    text = path.read_text(encoding="utf-8")
    if text.startswith("# "):
        title, _, text = text.partition("\n")
    else:
        title = f"# {path.stem.replace('_', ' ')}"
    study = study_of(path.stem, studies)
    parts = [title]
    if study is not None:
        parts.append(f"{study.question} Written by [`analysis/{study.script.name}`](../{study.script.name}).")
    parts.append(text.strip())
    if (figure := path.with_suffix(".png")).is_file() and figure.name not in text:
        parts.append(f"![The same, drawn]({figure.name})")
    if (numbers := path.with_suffix(".csv")).is_file() and numbers.name not in text:
        parts.append(f"[All numbers]({numbers.name})")
    return "\n\n".join(parts) + "\n"
