from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayes_clip.data.images import is_picture, load_image, thumbnail
from bayes_clip.errors import UserError

RED = (255, 0, 0)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def random_picture(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixel(path: Path, x: int = 0, y: int = 0) -> tuple[int, ...]:
    value = load_image(path).getpixel((x, y))
    assert isinstance(value, tuple)
    return tuple(int(channel) for channel in value)


@pytest.mark.parametrize(
    "mode, suffix",
    [
        ("RGB", "png"), ("L", "png"), ("1", "png"), ("P", "png"), ("LA", "png"), ("RGBA", "png"),
        ("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("LAB", "tif"), ("I;16", "png"), ("I;16", "tif"),
        ("I", "tif"), ("F", "tif"), ("RGBX", "tif"), ("P", "gif"), ("RGBA", "webp"), ("L", "pgm"),
        ("1", "pbm"),
    ],
)  # fmt: skip
def test_any_mode_becomes_rgb_of_the_same_size(mode: str, suffix: str, tmp_path: Path) -> None:
    grey = random_picture().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    elif mode == "LAB":
        image = Image.merge("LAB", (grey, grey, grey))
    else:
        image = random_picture().convert(mode)
    read = load_image(saved(image, tmp_path / f"picture.{suffix}"))
    assert (read.mode, read.size) == ("RGB", (40, 30))


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    path = saved(Image.fromarray(values), tmp_path / "deep.png")
    assert [pixel(path, x)[0] for x in range(3)] == [0, 100, 255]


def test_floating_point_grey_is_stretched(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)), tmp_path / "float.tif")
    assert [pixel(path, x)[0] for x in range(3)] == [0, 128, 255]


def test_floating_point_nan_is_damage(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)), tmp_path / "float.tif")
    with pytest.raises(UserError, match=r"float.tif: damaged picture \(NaN"):
        load_image(path)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    clear_black = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert pixel(saved(clear_black, tmp_path / "clear.png")) == (255, 255, 255)
    half_red = Image.new("RGBA", (4, 4), (*RED, 128))
    assert pixel(saved(half_red, tmp_path / "half.png")) == (255, 127, 127)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert pixel(saved(palette, tmp_path / "palette.png", transparency=0)) == (255, 255, 255)


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), "white")
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to show it
    assert load_image(saved(image, tmp_path / "turned.jpg", exif=exif)).size == (10, 20)


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert pixel(path) == RED


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    assert pixel(saved(Image.new("RGB", (1, 1), RED), tmp_path / "dot.png")) == RED


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
def test_truncated_pictures_are_named(suffix: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    random_picture(200, 200).save(stream, format={"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    with pytest.raises(UserError, match=rf"half\.{suffix}: ") as refusal:
        load_image(path)
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    for name, content in {"empty.jpg": b"", "words.png": b"not a picture"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: no picture"):
            load_image(tmp_path / name)
    with pytest.raises(UserError, match=r"gone\.png: no such picture"):
        load_image(tmp_path / "gone.png")


@pytest.mark.parametrize("limit", [700, 500])  # beyond the limit Pillow warns, beyond twice it, it raises
def test_decompression_bombs_are_refused(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(random_picture(40, 30), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(UserError, match=f"bomb.png: more than {limit} pixels"):
        load_image(path)


def test_threads_that_read_leave_the_filters_of_warnings_alone(tmp_path: Path) -> None:
    path = saved(random_picture(), tmp_path / "a.png")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(load_image, [path] * 200))
    assert warnings.filters == before


def test_picture_names_are_known_by_suffix_in_any_case() -> None:
    assert is_picture(Path("A.JPG")) and is_picture(Path("b.webp"))
    assert not is_picture(Path("notes.txt")) and not is_picture(Path(".hidden.png"))


def test_thumbnails_show_the_central_square() -> None:
    wide = Image.new("RGB", (300, 100), "blue")
    wide.paste("red", (100, 0, 200, 100))
    small = thumbnail(wide)
    assert small.shape == (3, 64, 64)
    inside = small[:, 2:-2, 2:-2]  # the outermost pixels blend with what was cut off
    assert inside[0].min() == 255 and inside[2].max() == 0
