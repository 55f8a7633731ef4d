"""Odd pictures have the features of the plain picture they show; broken ones are named."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.encode import encode_files
from bayes_clip.data.rendered_shapes import render_shape
from bayes_clip.data.resolve import load_input
from bayes_clip.data.store_place import use_store
from bayes_clip.errors import UserError

ORIENTATION = 0x0112
TURNED_BACK = {3: 180, 6: 90, 8: 270}  # EXIF orientation -> degrees anticlockwise that undo showing it
Odd = Callable[[Image.Image, Path], Image.Image]


def star() -> Image.Image:
    """A picture of a red star, 32 x 32."""
    return Image.fromarray(render_shape("star", "red", np.random.default_rng(0)).image.astype(np.uint8))


def cmyk(plain: Image.Image, path: Path) -> Image.Image:
    """Saved in CMYK; the plain picture it shows."""
    plain.convert("CMYK").save(path.with_suffix(".tif"))
    return plain.convert("CMYK").convert("RGB")


def sixteen_bit_grey(plain: Image.Image, path: Path) -> Image.Image:
    grey = np.asarray(plain.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(path.with_suffix(".png"))
    return Image.fromarray(grey).convert("RGB")


def palette_with_transparency(plain: Image.Image, path: Path) -> Image.Image:
    few = plain.quantize(16)
    few.save(path.with_suffix(".png"), transparency=3)
    shown = np.asarray(few.convert("RGB")).copy()
    shown[np.asarray(few) == 3] = 255
    return Image.fromarray(shown)


def half_transparent(plain: Image.Image, path: Path) -> Image.Image:
    layer = plain.convert("RGBA")
    layer.putalpha(128)
    layer.save(path.with_suffix(".webp"), lossless=True)
    white = Image.new("RGBA", plain.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def animated_gif(plain: Image.Image, path: Path) -> Image.Image:
    few = plain.quantize(64).convert("RGB")
    others = [Image.new("RGB", plain.size, colour) for colour in ("blue", "green")]
    few.save(path.with_suffix(".gif"), save_all=True, append_images=others)
    return few


def animated_webp(plain: Image.Image, path: Path) -> Image.Image:
    other = Image.new("RGB", plain.size, "blue")
    plain.save(path.with_suffix(".webp"), save_all=True, append_images=[other], lossless=True)
    return plain


def rotated_by_exif(plain: Image.Image, path: Path) -> Image.Image:
    for orientation, degrees in TURNED_BACK.items():
        exif = plain.getexif()
        exif[ORIENTATION] = orientation
        turned = plain.rotate(degrees, expand=True)
        turned.save(path.with_name(f"{path.name}{orientation}.png"), exif=exif)
    return plain


def one_pixel(plain: Image.Image, path: Path) -> Image.Image:
    Image.new("RGB", (1, 1), (200, 30, 60)).save(path.with_suffix(".png"))
    return Image.new("RGB", plain.size, (200, 30, 60))


ODD: tuple[Odd, ...] = (
    *(cmyk, sixteen_bit_grey, palette_with_transparency, half_transparent),
    *(animated_gif, animated_webp, rotated_by_exif, one_pixel),
)


@pytest.fixture(params=["kept", "not kept"])
def _store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    use_store(tmp_path / "store" if request.param == "kept" else None)
    yield
    use_store("default")


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
def test_an_odd_picture_has_the_features_of_what_it_shows(
    odd: Odd, tmp_path: Path, pocket: Backbone, _store: None
) -> None:
    (tmp_path / "odd").mkdir()
    shown = odd(star(), tmp_path / "odd" / "picture")
    shown.save(tmp_path / "plain.png")
    wanted = encode_files(pocket, [tmp_path / "plain.png"]).features
    for _ in range(2):
        found = load_input(tmp_path / "odd", pocket)
        raw = encode_files(pocket, sorted((tmp_path / "odd").iterdir())).features
        assert len(found) == len(raw) and torch.equal(raw, wanted.expand_as(raw))


def test_in_an_archive_they_are_the_same(tmp_path: Path, pocket: Backbone) -> None:
    (tmp_path / "odd").mkdir()
    for odd in ODD:
        odd(star(), tmp_path / "odd" / odd.__name__)
    paths = sorted((tmp_path / "odd").iterdir())
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        for path in paths:
            archive.add(path, path.name)
    in_folder, in_archive = load_input(tmp_path / "odd", pocket), load_input(tmp_path / "odd.tar", pocket)
    assert torch.equal(in_folder.features, in_archive.features)
    assert in_archive.paths == tuple(path.name for path in paths)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif"])
def test_truncated_pictures_are_named_in_one_line(suffix: str, tmp_path: Path, pocket: Backbone) -> None:
    stream = io.BytesIO()
    star().resize((200, 200)).save(stream, format={"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    whole = stream.getvalue()
    (tmp_path / f"whole.{suffix}").write_bytes(whole)
    (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
    with tarfile.open(tmp_path / "both.tar", "w") as archive:
        for name in ("half", "whole"):
            archive.add(tmp_path / f"{name}.{suffix}", f"{name}.{suffix}")
    for place, said in {tmp_path / "both.tar": r"both\.tar: member half", tmp_path: r"/half"}.items():
        with pytest.raises(UserError, match=rf"{said}\.{suffix}: (damaged picture|no picture)") as refusal:
            load_input(place, pocket)
        assert "\n" not in str(refusal.value)
        left = load_input(place, pocket, skip_broken=True)
        assert len(left) == 1 and len(left.notes) == 1
