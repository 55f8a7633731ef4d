"""Figures as SVG inside the page: they take its colours (light or dark), its type, and need no file."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from bayes_clip.report.style import BAND, ENGINE_COLOURS, GRID, INK, MUTED, OUTSIDE, RIGHT, house_style

# A colour of the figures -> the variable of the page's style sheet that stands for it.
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BAND: "--band",
    OUTSIDE: "--outside",
    RIGHT: "--right",
    "#ffffff": "--sheet",
    **{shade: f"--engine-{engine}" for engine, shade in ENGINE_COLOURS.items()},
}


def inline_svg(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an <svg> element whose ids begin with `name`, so that figures do not clash on a page."""
    file = io.StringIO()
    with house_style(), mpl.rc_context({"svg.fonttype": "none", "savefig.transparent": True}):
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=no_metadata)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", text)
    for colour, variable in VARIABLES.items():
        text = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable})", text, flags=re.IGNORECASE)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1, flags=re.DOTALL)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).rstrip())
