"""Figures as SVG: for a file, and inside the page, whose colours (light or dark) and type they take."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from bayes_clip.report.style import BAND, ENGINE_COLOURS, GRID, INK, MUTED, OUTSIDE, RIGHT

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


SCREEN = 1.6  # pixels of the page per point of a figure, at most: 9 point type is as large as the text


def svg_text(figure: Figure) -> str:
    """The figure as the text of an SVG file, the same on every run; letters stay letters."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "bayes_clip"}):
        figure.savefig(file, format="svg", metadata=nothing)
    # Matplotlib paints the ground of a hatch in the colour of its lines: fainter, the lines can be seen.
    return re.sub(r"(<pattern[^>]*>\s*<rect[^>]*?)/>", r'\1 fill-opacity="0.3"/>', file.getvalue())


def inline(svg: str, name: str, alt: str) -> Markup:
    """An <svg> element out of an SVG file; its ids begin with `name`, so that figures do not clash."""
    svg = svg[svg.index("<svg") :].rstrip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", svg)
    for colour, variable in VARIABLES.items():
        svg = re.sub(rf"(fill|stroke): {colour}", rf"\1: var({variable})", svg, flags=re.IGNORECASE)
    opening, rest = svg.split(">", 1)
    width = SCREEN * float(re.search(r'viewBox="0 0 ([\d.]+)', opening)[1])  # type: ignore[index]
    opening = re.sub(r'\s(width|height)="[^"]*"', "", opening)  # as wide as the page allows, within limits
    fits = f"max-width: {width:.0f}px; min-width: min(36rem, {width:.0f}px)"
    return Markup(
        opening.replace("<svg", f'<svg role="img" style="{fits}" aria-label="{escape(alt)}"', 1) + ">" + rest
    )
