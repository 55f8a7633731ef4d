"""Writing robustness curves to a folder: the table, the figure and a page, all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.shift import SHIFT_COLUMNS, Shifted
from bayes_clip.evaluation.write import write_csv
from bayes_clip.report.document import Document, Section, grid, render_document
from bayes_clip.report.glossary import TERMS
from bayes_clip.report.picture import Picture, save_pictures
from bayes_clip.report.shift_plots import robustness_curves
from bayes_clip.report.write import whole_folder
from bayes_clip.versions import installed_versions

OUR_FILES = frozenset({"shift.csv", "figures", "report.html", "config.json"})
SPOKEN = ("Accuracy", "Calibrated", "ECE", "NLL, or log-loss", "Novelty score")
COLUMNS = (
    ("corruption", "Corruption", "", None),
    ("severity", "Severity", "0 is clean", 0),
    ("accuracy", "Accuracy", "", 3),
    ("confidence", "Confidence", "mean probability of the predicted class", 3),
    ("nll", "NLL", "nats", 3),
    ("ece", "ECE", "", 3),
    ("novelty_mean", "Novelty", "mean score", 3),
    ("novelty_auroc", "AUROC", "of novelty, corrupted against clean", 3),
)


def write_shift(shifted: Shifted, directory: Path | str, config: Mapping[str, Any] | None = None) -> None:
    """Write shift.csv, figures/ (PNG and SVG), report.html and config.json.

    The folder appears whole at the end, in the place of an earlier one if there is one.

    Raises:
        UserError: the folder holds something else, or cannot be written to.
    """
    with whole_folder(directory, OUR_FILES) as folder:
        write_csv(folder / "shift.csv", SHIFT_COLUMNS, shifted.rows)
        document = document_of(shifted, config or {})
        drawings = save_pictures(document.pictures, folder / "figures")
        (folder / "report.html").write_text(render_document(document, drawings), encoding="utf-8")
        text = json.dumps({"versions": installed_versions(), **document.config}, indent=2, default=str)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def document_of(shifted: Shifted, config: Mapping[str, Any]) -> Document:
    """The page of robustness curves."""
    clean = shifted.rows[0]
    kinds = list(dict.fromkeys(row["corruption"] for row in shifted.rows[1:]))
    picture = Picture(
        name="robustness",
        task=shifted.task,
        title="What worse pictures cost, and whether it is noticed",
        finding=finding(shifted),
        caption="Query pictures made worse on purpose, each by the same accident further gone; severity 0 is "
        f"clean. The novelty score here is {shifted.novelty_score}.",
        alt=finding(shifted),
        figure=robustness_curves(shifted.rows),
    )
    said = f"{len(kinds)} corruptions of {clean['n_query']} query pictures; nothing was learned from them."
    table = grid("By corruption and severity", COLUMNS, shifted.rows)
    return Document(
        kicker="robustness",
        headline=f"{shifted.task}, corrupted",
        byline=said,
        sections=(
            Section("curves", "The curves", pictures=(picture,)),
            Section("table", "The table", tables=(table,)),
        ),
        notes=shifted.notes,
        terms=tuple(term for term in TERMS if term[0] in SPOKEN),
        files="Beside this page lie shift.csv, figures/ as PNG and SVG, and config.json, which says:",
        config=dict(config),
    )


def finding(shifted: Shifted) -> str:
    """Clean against the worst severity, the corruption that costs most, and whether the score notices."""
    clean, worse = shifted.rows[0], shifted.rows[1:]
    most = max(int(row["severity"]) for row in worse)
    last = [row for row in worse if row["severity"] == most]
    hardest = min(last, key=lambda row: _number(row, "accuracy"))
    means = {
        name: np.mean([_number(row, name) for row in last]) for name in ("accuracy", "ece", "novelty_auroc")
    }
    return (
        f"Accuracy falls from {_number(clean, 'accuracy'):.3f} to {means['accuracy']:.3f} on average at "
        f"severity {most}, furthest under {hardest['corruption']} ({_number(hardest, 'accuracy'):.3f}); ECE "
        f"goes from {_number(clean, 'ece'):.3f} to {means['ece']:.3f}; there the novelty score tells "
        f"corrupted pictures from clean ones with an AUROC of {means['novelty_auroc']:.3f}."
    )


def summary(shifted: Shifted) -> list[dict[str, Cell]]:
    """The rows of the terminal's table: clean, every corruption at its severities, and the mean of each."""
    rows: list[dict[str, Cell]] = [dict(row) for row in shifted.rows]
    worse = shifted.rows[1:]
    severities = sorted({int(row["severity"]) for row in worse})
    if len({row["corruption"] for row in worse}) > 1:
        for severity in severities:
            own = [row for row in worse if row["severity"] == severity]
            means = {key: float(np.mean([_number(row, key) for row in own])) for key, *_ in COLUMNS[2:]}
            rows.append({**own[0], "corruption": "mean", **means})
    return rows


def _number(row: Mapping[str, Cell], name: str) -> float:
    return float(row[name])
