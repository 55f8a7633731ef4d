"""A page made of sections: words, tables that sort, and figures. What the reports of fits and checks are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from bayes_clip.evaluation.results import Cell
from bayes_clip.report.html import environment
from bayes_clip.report.picture import Picture
from bayes_clip.report.svg import inline
from bayes_clip.versions import installed_versions


@dataclass(frozen=True)
class GridCell:
    """Text of a cell, what it is sorted by, and whether it is words (set to the left)."""

    text: str
    value: Cell
    words: bool


@dataclass(frozen=True)
class Grid:
    """A table: `headings` are (heading, explanation or "", is of words); the first cell of a row names it."""

    title: str
    headings: tuple[tuple[str, str, bool], ...]
    rows: tuple[tuple[GridCell, ...], ...]


@dataclass(frozen=True)
class Section:
    """One part of a page; `sentences` are set large, each stands for itself."""

    anchor: str
    title: str
    sentences: tuple[str, ...] = ()
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Grid, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Document:
    """A whole page; `notes` stand under the first section, `files` says what lies beside the page."""

    kicker: str
    headline: str
    byline: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    terms: tuple[tuple[str, str], ...]
    files: str
    config: Mapping[str, Any]

    @property
    def pictures(self) -> list[Picture]:
        """All figures, in the order of the page."""
        return [picture for section in self.sections for picture in section.pictures]


def grid(
    title: str, columns: Sequence[tuple[str, str, str, int | None]], rows: Sequence[Mapping[str, Cell]]
) -> Grid:
    """A table of `rows`; `columns` are (key, heading, explanation, digits, None for words or as it is).

    Columns that are empty in every row are left out.
    """
    shown = [column for column in columns if any(row.get(column[0], "") != "" for row in rows)]
    return Grid(
        title=title,
        headings=tuple(
            (heading, explanation, all(isinstance(row.get(key, ""), str) for row in rows))
            for key, heading, explanation, _ in shown
        ),
        rows=tuple(tuple(_cell(row.get(key, ""), digits) for key, _, _, digits in shown) for row in rows),
    )


def render_document(document: Document, drawings: Mapping[str, str]) -> str:
    """The page as text, with figures, styles and script inside; `drawings`: the SVG of every picture."""
    page = environment().get_template("document.html.j2")
    return page.render(
        kicker=document.kicker,
        headline=document.headline,
        date=date.today().isoformat(),
        sections=[(section.anchor, section.title) for section in document.sections],
        document=document,
        drawings={
            picture.name: inline(drawings[picture.name], picture.name, picture.alt)
            for picture in document.pictures
        },
        terms=document.terms,
        versions=installed_versions(),
        config=json.dumps(document.config, indent=2, default=str),
    )


def _cell(value: Cell, digits: int | None) -> GridCell:
    if isinstance(value, str):
        return GridCell(value, value, True)
    return GridCell(f"{value:.4g}" if digits is None else f"{value:.{digits}f}", value, False)
