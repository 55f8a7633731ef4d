from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.encode import encode_class_names, encode_files
from bayes_clip.data.images import load_image
from bayes_clip.errors import UserError

SavePictures = Callable[..., Path]


@pytest.fixture
def paths(save_pictures: SavePictures) -> list[Path]:
    root = save_pictures("a.png", "b.png", "c.png", "d.png")
    return [root / f"{name}.png" for name in "dacb"]


def test_rows_stand_in_the_order_of_the_paths(paths: list[Path], pocket: Backbone) -> None:
    encoded = encode_files(pocket, paths)
    expected = torch.cat([pocket.encode_images([load_image(path)]) for path in paths])
    torch.testing.assert_close(encoded.features, expected, rtol=1e-4, atol=1e-5)
    assert (encoded.kept, encoded.thumbnails, encoded.notes) == ((0, 1, 2, 3), None, ())


def test_a_broken_picture_is_named(paths: list[Path], pocket: Backbone) -> None:
    paths[2].write_bytes(b"broken")
    with pytest.raises(UserError, match=r"c\.png: no picture"):
        encode_files(pocket, paths)


def test_broken_pictures_are_skipped_by_choice(paths: list[Path], pocket: Backbone) -> None:
    whole = encode_files(pocket, paths, with_thumbnails=True)
    paths[2].write_bytes(b"broken")
    encoded = encode_files(pocket, paths, skip_broken=True, with_thumbnails=True)
    assert encoded.kept == (0, 1, 3)
    torch.testing.assert_close(encoded.features, whole.features[[0, 1, 3]], rtol=1e-4, atol=1e-5)
    assert encoded.thumbnails is not None and whole.thumbnails is not None
    assert torch.equal(encoded.thumbnails, whole.thumbnails[[0, 1, 3]])
    (note,) = encoded.notes
    assert note.startswith("skipped ") and "c.png" in note


def test_nothing_but_broken_pictures_is_refused(paths: list[Path], pocket: Backbone) -> None:
    for path in paths:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"none of 4 pictures can be read; the first: .*d\.png"):
        encode_files(pocket, paths, skip_broken=True)


def test_of_several_broken_pictures_the_first_is_named(paths: list[Path], pocket: Backbone) -> None:
    for path in paths[1:3]:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"a\.png: no picture"):
        encode_files(pocket, paths)
    notes = encode_files(pocket, paths, skip_broken=True).notes
    assert [name for note in notes for name in "abcd" if f"{name}.png" in note] == ["a", "c"]


def test_unknown_words_of_prompts_become_a_note_instead_of_a_warning(pocket: Backbone) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text, notes = encode_class_names(pocket, ["zebra", "red circle"], ["a {}", "a gnu and a {}"])
    assert text.shape == (2, pocket.feature_dim)
    assert notes == (
        "pocket_clip never saw 'zebra', 'gnu' in training: its text features of them mean little",
    )
    assert encode_class_names(pocket, ["red circle"], None)[1] == ()
