"""Printed glyphs from the fonts that pip packages bring: matplotlib's families and the one inside PIL."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .distort import Pose, bend_picture
from .strokes import SIDE

# Family words for the caption, and the file in matplotlib's font folder (None: PIL's own font).
FONTS: tuple[tuple[str, str | None], ...] = (
    ("sans", None),
    ("sans", "DejaVuSans.ttf"),
    ("bold sans", "DejaVuSans-Bold.ttf"),
    ("italic sans", "DejaVuSans-Oblique.ttf"),
    ("mono", "DejaVuSansMono.ttf"),
    ("bold mono", "DejaVuSansMono-Bold.ttf"),
    ("serif", "DejaVuSerif.ttf"),
    ("bold serif", "DejaVuSerif-Bold.ttf"),
    ("italic serif", "DejaVuSerif-Italic.ttf"),
    ("serif", "STIXGeneral.ttf"),
    ("bold serif", "STIXGeneralBol.ttf"),
    ("italic serif", "STIXGeneralItalic.ttf"),
    ("serif", "cmr10.ttf"),
    ("sans", "cmss10.ttf"),
    ("mono", "cmtt10.ttf"),
    ("bold serif", "cmb10.ttf"),
)


@cache
def _glyph(symbol: str, font_index: int) -> Image.Image:
    """A white printed glyph on a black (96, 96) canvas with margins for the distortion."""
    file = FONTS[font_index][1]
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.load_default(72) if file is None else ImageFont.truetype(str(folder / file), 72)
    left, top, right, bottom = font.getbbox(symbol)
    canvas = Image.new("L", (SIDE, SIDE), 0)
    place = ((SIDE - left - right) / 2, (SIDE - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(place, symbol, fill=255, font=font)
    return canvas


def draw_printed(symbol: str, pose: Pose, rng: np.random.Generator) -> tuple[Image.Image, str]:
    """A white glyph on a black (96, 96) canvas, touching the frame, and its font's family words."""
    index = int(rng.integers(len(FONTS)))
    bent = bend_picture(_glyph(symbol, index), pose)
    box = bent.point(lambda level: 255 * (level > 60)).getbbox() or (0, 0, SIDE, SIDE)
    crop = bent.crop(box)
    scale = SIDE / max(crop.size)
    size = (max(1, round(crop.width * scale)), max(1, round(crop.height * scale)))
    canvas = Image.new("L", (SIDE, SIDE), 0)
    canvas.paste(crop.resize(size, Image.Resampling.BILINEAR), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return canvas, FONTS[index][0]
