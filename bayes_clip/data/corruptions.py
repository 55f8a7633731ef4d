"""Pictures made worse on purpose: eight corruptions in five severities, the same at every call.

Strengths are shares of a picture's side or of its brightness, so that they mean the same at every size. What
is random (where a patch lies, which way a picture turns, each pixel's noise) is drawn once for a seed and
then grows with the severity: a worse picture is the same accident, further gone. In the spirit of Hendrycks
& Dietterich (ICLR 2019), whose own strengths are for photographs of 224 pixels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from bayes_clip.data.rows import Pictures
from bayes_clip.errors import UserError, nearest

SEVERITIES = (1, 2, 3, 4, 5)
Change = Callable[[Image.Image, float, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Corruption:
    """What is done to a picture, how strongly at each severity, and in words."""

    change: Change
    strengths: tuple[float, float, float, float, float]
    meaning: str  # of the strengths


def _noise(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float64)
    return _picture(pixels + 255 * strength * generator.standard_normal(pixels.shape))


def _blur(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(strength * min(image.size)))


def _contrast(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(strength)


def _brightness(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    return _picture(np.asarray(image, dtype=np.float64) + 255 * strength)


def _rotation(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    way = 1 if generator.random() < 0.5 else -1
    return image.rotate(way * strength, Image.Resampling.BICUBIC, fillcolor=_rim_colour(image))


def _inversion(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    return ImageOps.solarize(image, round(strength))


def _occlusion(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(strength * length)) for length in image.size)
    places = zip(generator.random(2), image.size, (width, height), strict=True)
    left, top = (
        min(max(round(share * length) - side // 2, 0), length - side) for share, length, side in places
    )
    covered = image.copy()
    covered.paste((128, 128, 128), (left, top, left + width, top + height))
    return covered


def _jpeg(image: Image.Image, strength: float, generator: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=round(strength))
    with Image.open(file) as opened:
        return opened.convert("RGB")


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "noise": Corruption(_noise, (0.05, 0.1, 0.16, 0.24, 0.35), "deviation, as a share of white"),
        "blur": Corruption(_blur, (0.015, 0.025, 0.04, 0.055, 0.075), "radius, as a share of the side"),
        "contrast": Corruption(_contrast, (0.7, 0.5, 0.35, 0.22, 0.12), "share of the contrast that stays"),
        "brightness": Corruption(_brightness, (0.12, 0.24, 0.36, 0.48, 0.6), "added, as a share of white"),
        "rotation": Corruption(_rotation, (8.0, 16.0, 24.0, 34.0, 46.0), "degrees, either way"),
        "inversion": Corruption(_inversion, (208, 156, 104, 52, 0), "level from which pixels are inverted"),
        "occlusion": Corruption(_occlusion, (0.15, 0.25, 0.35, 0.45, 0.55), "grey patch, share of the side"),
        "jpeg": Corruption(_jpeg, (40, 25, 15, 9, 5), "JPEG quality"),
    }
)


def corrupted(image: Image.Image, name: str, severity: int, seed: int | tuple[int, ...] = 0) -> Image.Image:
    """The picture as RGB, of the same size, with corruption `name` (a key of CORRUPTIONS) of `severity` 1-5.

    Raises:
        UserError: an unknown name, or a severity that is none of 1 to 5.
    """
    check_corruption(name, severity)
    chosen = CORRUPTIONS[name]
    return chosen.change(image.convert("RGB"), chosen.strengths[severity - 1], np.random.default_rng(seed))


def corrupted_pictures(pictures: Pictures, name: str, severity: int, seed: int = 0) -> Pictures:
    """The same pictures, each corrupted when it is read; its accident depends on `seed` and its number.

    Raises:
        UserError: an unknown name, a severity that is none of 1 to 5; on reading, one that is pixels already.
    """
    check_corruption(name, severity)

    def read(number: int) -> Image.Image:
        picture = pictures.read(number)
        if not isinstance(picture, Image.Image):
            raise UserError(f"picture {number} is a tensor of pixels; corruptions take pictures (PIL)")
        return corrupted(picture, name, severity, (seed, number))

    return Pictures(read, pictures.numbers, pictures.mirrors, pictures.called)


def check_corruption(name: str, severity: int) -> None:
    """Refuse what is no corruption.

    Raises:
        UserError: an unknown name, or a severity that is none of 1 to 5.
    """
    if name not in CORRUPTIONS:
        raise UserError(
            f"corruption '{name}': no such corruption.{nearest(name, CORRUPTIONS)} "
            f"Known: {', '.join(CORRUPTIONS)}"
        )
    if severity not in SEVERITIES:
        raise UserError(f"severity {severity}: must be a whole number from 1 (slight) to 5 (severe)")


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))


def _rim_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of the outermost pixels: what a turned picture's corners are filled with."""
    pixels = np.asarray(image)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(rim, axis=0).astype(int).tolist()
    return red, green, blue
