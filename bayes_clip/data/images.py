"""One picture of any kind as 8-bit RGB, or a refusal that names its file."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from bayes_clip.errors import UserError

SUFFIXES = frozenset(
    (
        ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".ico", ".avif",
    )
)  # fmt: skip
THUMBNAIL_SIDE = 64  # pixels
READING = 1  # counted up when a picture comes to be read otherwise: features kept on disk are then made anew
_FILTERS = threading.Lock()  # filters of warnings are the whole process's, and pictures are read by threads
# Pillow reports damage by whatever its decoders happen to raise.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, OverflowError)


def is_picture(path: PurePath) -> bool:
    """Whether the name of `path` is that of a picture, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def load_image(path: str | Path) -> Image.Image:
    """Read `path` as an RGB picture, as `decode_image` does.

    Raises:
        UserError: missing or not readable, or what `decode_image` refuses.
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: str | Path) -> bytes:
    """What the file of a picture holds.

    Raises:
        UserError: missing or not readable.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such picture; check the path")
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path}: cannot be read ({reason}); change its permissions or remove it") from None


def decode_image(content: bytes, name: str | Path) -> Image.Image:
    """The bytes of a picture as RGB, turned upright as its EXIF data say; a refusal calls it `name`.

    Transparency is laid on white; 16-bit grey is divided by 257; other wide grey (32-bit, floating point) is
    stretched from its own minimum and maximum to 0 and 255; of an animation the first frame counts.

    Raises:
        UserError: truncated or damaged, no picture at all, or so many pixels (more than
            ``PIL.Image.MAX_IMAGE_PIXELS``) that decoding it could exhaust the memory.
    """
    try:
        with _opened(content) as opened:
            opened.load()
            _check_pixels(opened)  # some formats say only now how large they are
            return _as_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        raise UserError(
            f"{name}: no picture that can be read; convert it to PNG or JPEG, or remove it"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise UserError(f"{name}: more than {limit} pixels (a decompression bomb?); shrink it") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name}: damaged picture ({reason}); replace it or skip broken pictures") from None


def thumbnail(image: Image.Image) -> Tensor:
    """The central square of an RGB picture at 64 x 64 pixels, (3, 64, 64) uint8."""
    small = ImageOps.fit(image, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), method=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def _opened(content: bytes) -> Image.Image:
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(content))


def _check_pixels(image: Image.Image) -> None:
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(lab, srgb, "LAB", "RGB")) or image
    if image.mode in ("La", "RGBa"):  # alpha multiplied in; divide it out first
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """Wide grey values (h, w) as uint8; NaN and infinity are damage."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    if grey.dtype.kind in "iu" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    if high > low:
        values = (values - low) * (255.0 / (high - low))
    return np.rint(values.clip(0, 255)).astype(np.uint8)
