"""What each kind of picture is called in its captions: subjects, facts and adjectives."""

from __future__ import annotations

import numpy as np

from bayes_clip.data.digit_images import DIGIT_CLASS_NAMES
from bayes_clip.data.rendered_shapes import ShapePicture
from bayes_clip.data.rendered_textures import TexturePicture

from .captions import TokenCounter, compose
from .glyphs import GlyphPicture

# The first name comes most often, see _colour.
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "scarlet", "crimson", "vermilion"),
    "green": ("green", "emerald", "grass green"),
    "blue": ("blue", "cobalt blue", "royal blue", "ultramarine"),
    "yellow": ("yellow", "lemon yellow", "canary yellow"),
    "orange": ("orange", "tangerine", "amber"),
    "purple": ("purple", "violet", "plum"),
    "pink": ("pink", "rose", "rosy"),
    "brown": ("brown", "chocolate brown", "chestnut brown", "coffee brown"),
    "gray": ("gray", "grey", "ash gray"),
    "white": ("white", "snow white", "ivory"),
    "black": ("black", "jet black", "ink black"),
    "cyan": ("cyan", "turquoise", "aqua", "sky blue"),
}
FIRST_NAME_SHARE = 0.8
LIGHT = ("white", "yellow", "pink", "cyan")
DARK = ("black", "blue", "purple", "brown")
GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "uniform", "even colored", "empty"),
    "gradient": ("shaded", "fading", "gradually changing"),
    "noisy": ("noisy", "grainy", "speckled"),
    "striped": ("striped", "lined", "stripy"),
}
FONT_WORDS: dict[str, tuple[str, ...]] = {
    "sans": ("in a sans serif font", "in plain type", "in a simple font without serifs"),
    "serif": ("in a serif font", "in book type", "in a classic font with serifs"),
    "mono": ("in a monospace font", "in typewriter letters", "as typed on a terminal"),
}
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "round disc", "ball"),
    "ring": ("ring", "ring", "hollow circle"),
    "cross": ("cross", "cross", "plus sign"),
    "crescent": ("crescent", "crescent", "crescent moon"),
    "diamond": ("diamond", "diamond", "rhombus"),
    "star": ("star", "star", "star with five points"),
    "hexagon": ("hexagon", "hexagon", "shape with six sides"),
    "arrow": ("arrow", "arrow", "arrow pointing right"),
    "triangle": ("triangle", "triangle", "shape with three corners", "triangular sign"),
    "rectangle": ("rectangle", "rectangle", "oblong block", "rectangular bar"),
    "heart": ("heart", "heart", "heart symbol", "sign of love"),
    "square": ("square", "square", "box"),
}
TEXTURE_WORDS: dict[str, tuple[str, ...]] = {
    "checkerboard": ("checkerboard", "checkered pattern", "chess board pattern"),
    "dots": ("dots", "polka dots", "dotted pattern", "spots"),
    "grid": ("grid", "lattice", "net of lines", "mesh"),
    "waves": ("waves", "wavy lines", "wavy pattern"),
    "rings": ("concentric rings", "circles inside circles", "rings"),
    "noise": ("noise", "random noise", "static", "random pixels"),
    "gradient": ("gradient", "smooth gradient", "soft color transition"),
    "blobs": ("blobs", "cloudy pattern", "patches", "stains"),
    "plain": ("plain color", "empty picture", "uniform area", "nothing"),
}


def _ways(wordings: dict[str, tuple[str, ...]], name: str) -> tuple[str, ...]:
    return wordings.get(name, (name,))


def _colour(name: str, rng: np.random.Generator) -> str:
    """The colour's plain name, or now and then another."""
    words = COLOUR_WORDS[name]
    return words[0] if rng.uniform() < FIRST_NAME_SHARE else words[int(rng.integers(1, len(words)))]


def _resolution_words(resolution: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Clauses and adjectives for a picture of so many pixels."""
    if resolution == 8:
        return (
            "at very low resolution", "with very few pixels", "only eight by eight pixels", "heavily blurred",
            "enlarged from a tiny scan", "out of focus",
        ), ("blurry", "blurred", "coarse", "tiny", "unclear", "low resolution", "soft")  # fmt: skip
    if resolution == 16:
        return ("at low resolution", "slightly blurred", "a little out of focus", "sixteen pixels wide"), (
            "slightly blurry", "low resolution", "smooth", "soft",
        )  # fmt: skip
    return ("sharp and clear", "with crisp edges", "at full resolution", "in focus"), (
        "sharp", "clear", "crisp", "detailed",
    )  # fmt: skip


def _glyph_subjects(symbol: str, drawn: bool) -> tuple[str, ...]:
    if symbol.isdigit():
        word = DIGIT_CLASS_NAMES[int(symbol)]
        parity = "even" if int(symbol) % 2 == 0 else "odd"
        common = (
            word, symbol, f"the digit {word}", f"the number {word}", f"the digit {symbol}",
            f"the number {symbol}",
            f"a {word}", f"digit {word}", f"number {word}", f"the numeral {word}", f'the number: "{word}"',
            f"the {parity} digit {word}", f"the figure {symbol}", f"{symbol} ({word})",
        )  # fmt: skip
        if drawn:
            return (*common, f"a handwritten {word}", f"the handwritten digit {word}", f"a hand drawn {word}",
                    f"the handwritten number {symbol}", f"a written {word}")  # fmt: skip
        return (
            *common,
            f"a printed {word}",
            f"the printed digit {word}",
            f"a typed {symbol}",
            f"a printed {symbol}",
        )
    case = ("capital", "uppercase", "big") if symbol.isupper() else ("lowercase", "small", "little")
    letter = symbol.lower()
    kind = "vowel" if letter in "aeiou" else "consonant"
    common = (
        f"the letter {letter}", f"letter {letter}", f"the {case[0]} letter {letter}", f"a {case[0]} {letter}",
        f"the {case[1]} letter {letter}", f"{case[0]} {letter}", f"the {kind} {letter}",
        f"the {case[2]} letter {letter} of the alphabet", f"the character {letter}",
    )  # fmt: skip
    if drawn:
        return (*common, f"a handwritten letter {letter}", f"a hand drawn {case[0]} {letter}")
    return (*common, f"a printed letter {letter}", f"a typed {case[0]} {letter}")


def _pen_words(width: float) -> tuple[str, ...]:
    if width < 0.1:
        return ("with thin strokes", "drawn with a thin pen", "written with a fine pencil", "in thin lines")
    if width > 0.155:
        return (
            "with thick strokes",
            "drawn with a thick marker",
            "painted with a broad brush",
            "in heavy lines",
        )
    return ("with strokes of medium width", "drawn with a pen", "written with a ballpoint pen", "in ink")


def caption_glyph(picture: GlyphPicture, count: TokenCounter, rng: np.random.Generator) -> str:
    """A caption of a digit or a letter."""
    ink, ground = _colour(picture.ink, rng), _colour(picture.background, rng)
    resolution, qualities = _resolution_words(picture.resolution)
    clauses: list[tuple[str, ...]] = [
        (f"{ink} on {ground}", f"in {ink} on a {ground} background", f"{ink} ink on {ground} paper",
         f"on a {ground} background", f"in {ink}", f"{ink} strokes over {ground}", f"its color is {ink}"),
        resolution,
    ]  # fmt: skip
    if picture.font is None:
        clauses.append(("written by hand", "drawn by hand", "in handwriting", "from a handwritten form",
                        "scribbled by a person", "written quickly on paper",
                        "jotted down in a notebook", "in careless handwriting",
                        "manually written"))  # fmt: skip
        clauses.append(_pen_words(picture.width or 0.0))
    else:
        clauses.append(FONT_WORDS[picture.font.split()[-1]])
        if picture.font.startswith("bold"):
            clauses.append(("in bold", "printed in heavy type", "in bold face"))
        if picture.font.startswith("italic"):
            clauses.append(("in italic", "in slanted type", "printed in italics"))
    if abs(picture.lean) > 0.22:
        side = "right" if picture.lean > 0 else "left"
        clauses.append((f"leaning to the {side}", f"tilted to the {side}", f"slanted to the {side}"))
    elif abs(picture.lean) < 0.08:
        clauses.append(("standing upright", "straight and vertical"))
    if picture.fill == 1.0:
        clauses.append(("filling the frame", "as large as the picture", "touching the edges"))
    elif picture.fill < 0.65:
        clauses.append(("with a wide margin", "smaller than the frame", "of small size"))
    if picture.noise > 12.0:
        clauses.append(("with a lot of noise", "with noisy pixels", "on grainy film"))
        qualities = (*qualities, "noisy", "grainy")
    if (picture.ink, picture.background) == ("white", "black"):
        qualities = (*qualities, "black and white", "monochrome", "dark")
    subjects = _glyph_subjects(picture.symbol, picture.font is None)
    return compose(subjects, tuple(clauses), qualities, count, rng)


def _position_words(centre: tuple[float, float]) -> tuple[str, ...]:
    column = "left" if centre[0] < 0.42 else "right" if centre[0] > 0.58 else ""
    row = "top" if centre[1] < 0.42 else "bottom" if centre[1] > 0.58 else ""
    if not column and not row:
        return ("in the middle", "in the center", "centered in the picture")
    place = f"{row} {column}".strip()
    return (f"at the {place}", f"in the {place} part", f"near the {place} side", f"placed to the {place}")


def caption_shape(picture: ShapePicture, count: TokenCounter, rng: np.random.Generator) -> str:
    """A caption of a coloured shape."""
    colour, ground = _colour(picture.colour, rng), _colour(picture.background, rng)
    words = _ways(SHAPE_WORDS, picture.shape)
    size = "small" if picture.size < 0.52 else "large" if picture.size > 0.7 else "middle sized"
    kind = GROUND_WORDS[picture.ground][int(rng.integers(len(GROUND_WORDS[picture.ground])))]
    subjects = tuple(
        form.format(colour=colour, shape=word, size=size)
        for word in words
        for form in ("{colour} {shape}", "a {colour} {shape}", "a {size} {colour} {shape}",
                     "the {colour} {shape}",
                     "a {shape} in {colour}", "a {colour} colored {shape}", "a solid {colour} {shape}",
                     "a geometric shape: a {colour} {shape}", "a {shape} painted {colour}",
                     "one {colour} {shape}")
    )  # fmt: skip
    clauses = (
        (f"on a {ground} background", f"on {ground}", f"over a {kind} {ground} background",
         f"in front of {ground}",
         f"the background is {ground}", f"surrounded by {ground}", f"against a {kind} {ground} wall"),
        _position_words(picture.centre),
        (f"the {words[0]} is {size}", f"of {size} size", f"the shape is {colour}", f"filled with {colour}"),
    )  # fmt: skip
    tone: tuple[str, ...] = ()
    if picture.background in LIGHT:
        tone = ("light", "bright")
    elif picture.background in DARK:
        tone = ("dark",)
    return compose(subjects, clauses, (*tone, "colorful", "flat", "geometric", "abstract"), count, rng)


def caption_texture(picture: TexturePicture, count: TokenCounter, rng: np.random.Generator) -> str:
    """A caption of a texture."""
    first, second = _colour(picture.first, rng), _colour(picture.second, rng)
    if rng.uniform() < 0.5:
        first, second = second, first
    both = first if picture.texture == "plain" else f"{first} and {second}"
    scale = "fine" if picture.period < 7.5 else "coarse" if picture.period > 11.0 else "regular"
    words = _ways(TEXTURE_WORDS, picture.texture)
    subjects = tuple(
        form.format(both=both, word=word, scale=scale)
        for word in words
        for form in ("{both} {word}", "{word}", "{word} in {both}", "a texture of {word}",
                     "a texture of {both} {word}",
                     "a {scale} texture with {word}", "a surface covered with {both} {word}",
                     "a pattern of {word}")
    )  # fmt: skip
    clauses = (
        (f"the colors are {both}", f"in {both}", f"colored {both}", f"painted {both}"),
        (f"with a {scale} structure", f"{scale} in scale", f"a {scale} repeating pattern"),
        (
            "no object in it",
            "only a texture",
            "covering everything",
            "like wallpaper",
            "like fabric",
            "like woven cloth",
            "like a tiled floor",
            "an endless decoration",
            "an ornament without any figure",
        ),
    )
    return compose(subjects, clauses, ("abstract", "colorful", "patterned", scale), count, rng)
