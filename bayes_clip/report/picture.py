"""A figure with the words that go with it, and how figures get to disk."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from bayes_clip.report.svg import svg_text

RESOLUTION = 160  # dots per inch of the PNG files


@dataclass(frozen=True)
class Picture:
    """A figure, its file name without ending, the section it belongs to, and its words.

    `title` says what is seen, `finding` what to conclude from these numbers (computed, and as plain when
    it is bad news), `caption` how to read it, `alt` what the figure shows in numbers, for
    those who cannot see it.
    """

    name: str
    task: str
    title: str
    finding: str
    caption: str
    alt: str
    figure: Figure


@contextmanager
def any_script() -> Iterator[None]:
    """No warnings of names in scripts that matplotlib's font lacks: boxes in the PNG, letters in the SVG."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def settled(pictures: Sequence[Picture]) -> list[Picture]:
    """The same, with the layouts worked out once: three files are saved from each."""
    with any_script():
        for picture in pictures:
            if picture.figure.get_layout_engine() is not None:
                picture.figure.draw_without_rendering()
                picture.figure.set_layout_engine(None)
    return list(pictures)


def save_pictures(pictures: Sequence[Picture], folder: Path) -> dict[str, str]:
    """Write each as PNG and SVG into `folder`, which is made; the SVG of each by its name."""
    folder.mkdir()
    with any_script():
        drawings = {picture.name: svg_text(picture.figure) for picture in settled(pictures)}
        for picture in pictures:
            picture.figure.savefig(folder / f"{picture.name}.png", dpi=RESOLUTION)
            (folder / f"{picture.name}.svg").write_text(drawings[picture.name], encoding="utf-8")
    return drawings
