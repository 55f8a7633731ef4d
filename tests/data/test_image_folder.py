from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bayes_clip.data.image_folder import ImageFolder, scan_folder
from bayes_clip.errors import UserError

SavePictures = Callable[..., Path]
PETS = ("cat/1.png", "cat/2.jpg", "cat/3.PNG", "sea_otter/a.png", "sea_otter/b.bmp", "sea_otter/c.png")


def names(folder: ImageFolder, side: str) -> list[str]:
    return [str(path.relative_to(folder.root)) for path in getattr(folder, side).paths]


def test_without_test_half_of_each_class_is_held_out(save_pictures: SavePictures) -> None:
    folder = scan_folder(save_pictures(*PETS))
    assert folder.class_names == ("cat", "sea otter")
    assert folder.support.labels == (0, 0, 1, 1)
    assert folder.query.labels == (0, 1)
    assert sorted(names(folder, "support") + names(folder, "query")) == sorted(PETS)
    assert folder.notes == ("no test/ folder: half of each class, by a fixed draw, is held out as query",)


def test_the_held_out_half_is_the_same_every_time(save_pictures: SavePictures) -> None:
    root = save_pictures(*(f"{label}/{index}.png" for label in "ab" for index in range(20)))
    assert scan_folder(root) == scan_folder(str(root))


def test_train_and_test_are_taken_as_they_are(save_pictures: SavePictures) -> None:
    folder = scan_folder(
        save_pictures("train/cat/1.png", "train/dog/2.png", "train/owl/3.png", "test/dog/4.png")
    )
    assert names(folder, "support") == ["train/cat/1.png", "train/dog/2.png", "train/owl/3.png"]
    assert (names(folder, "query"), folder.query.labels) == (["test/dog/4.png"], (1,))
    assert folder.notes == ("classes without test pictures: 2 ('cat' the first)",)


def test_classes_may_be_called_train_and_test(save_pictures: SavePictures) -> None:
    folder = scan_folder(save_pictures("test/1.png", "test/2.png", "train/1.png", "train/2.png"))
    assert folder.class_names == ("test", "train")


def test_what_is_left_out_is_noted(save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS, "loose.png", ".hidden/x.png", "cat/.hidden.png")
    (root / "cat" / "notes.txt").write_text("about cats")
    folder = scan_folder(root)
    assert sorted(names(folder, "support") + names(folder, "query")) == sorted(PETS)
    assert folder.notes[:2] == (
        "pictures right in pictures/, which belong to no class and are left out: 1",
        "entries of the class folders that are no pictures and are left out: 1",
    )
    split = ("train/a/1.png", "train/a/2.png", "train/b/1.png", "val/a/1.png")
    beside = scan_folder(save_pictures(*split, root="split"))
    assert "folders beside train/ and test/ are left out: val" in beside.notes


@pytest.mark.parametrize(
    "text, expected",
    [
        ("house cat\notter\n", ("house cat", "otter")),
        ("\ufeffhouse cat\r\notter\r\n\r\n", ("house cat", "otter")),
        ("sea_otter\totter\ncat\thouse cat", ("house cat", "otter")),
    ],
)
def test_a_file_names_the_classes(text: str, expected: tuple[str, ...], save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS)
    (root / "classnames.txt").write_bytes(text.encode())
    assert scan_folder(root).class_names == expected


@pytest.mark.parametrize(
    "text, message",
    [
        (b"one\n", "classnames.txt: 1 names for 2 class folders"),
        (b"a\nb\nc", "3 names for 2"),
        (b"cat\tone\n", "'sea_otter' has no line"),
        (b"cat\tone\ncat\ttwo\n", "line 2: folder 'cat' for the second time"),
        (b"cat\tone\ndog\ttwo\n", "line 2: there is no class folder 'dog'"),
        (b"cat\tone\nsea_otter\n", "line 2: no name"),
        (b"\xff\xfe\xff", "classnames.txt: cannot be read"),
    ],
)
def test_a_file_of_names_that_does_not_fit(text: bytes, message: str, save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS)
    (root / "classnames.txt").write_bytes(text)
    with pytest.raises(UserError, match=message):
        scan_folder(root)


@pytest.mark.parametrize(
    "pictures, message",
    [
        ((), "an empty folder"),
        (("1.png", "2.png"), "2 pictures but no class folders"),
        (("cat/1.png",), r"one class only \('cat'\)"),
        (("cat/1.png", "dog/1.png"), "one picture per class leaves none to test on"),
        (("train/a/1.png", "train/b/1.png", "test/c/1.png"), "class 'c' is in test/ but not in train/"),
        (("test/a/1.png", "test/b/1.png"), "has test/ but no train/"),
    ],
)
def test_folders_that_make_no_task(
    pictures: tuple[str, ...], message: str, save_pictures: SavePictures
) -> None:
    root = save_pictures(*pictures)
    root.mkdir(exist_ok=True)
    with pytest.raises(UserError, match=message) as refusal:
        scan_folder(root)
    assert str(root) in str(refusal.value)


def test_an_empty_class_a_missing_folder_and_a_file_are_refused(save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS)
    with pytest.raises(UserError, match="gone: no such file or folder"):
        scan_folder(root / "gone")
    with pytest.raises(UserError, match="a file, not a folder"):
        scan_folder(root / "cat" / "1.png")
    (root / "dog").mkdir()
    with pytest.raises(UserError, match="dog: no pictures in this class folder"):
        scan_folder(root)


def test_of_a_partial_folder_everything_is_support(save_pictures: SavePictures) -> None:
    folder = scan_folder(save_pictures(*PETS), partial=True)
    assert sorted(names(folder, "support")) == sorted(PETS) and len(folder.query) == 0
    assert folder.notes == ()
    lone = save_pictures("cat/1.png", root="lone")
    assert scan_folder(lone, partial=True).class_names == ("cat",)
    with pytest.raises(UserError, match="one class only"):
        scan_folder(lone)
    split = save_pictures("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", root="split")
    assert names(scan_folder(split, partial=True), "support") == ["train/cat/1.png", "train/dog/2.png"]
