"""Which pictures INPUT means, in every form, and refusals that name the file, line or member."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data.listing import list_pictures
from bayes_clip.data.resolve import load_input
from bayes_clip.errors import UserError

SavePictures = Callable[..., Path]
PETS = ("cat/1.png", "cat/2.png", "cat/3.png", "sea_otter/a.png", "sea_otter/b.png")


def names(path: Path) -> list[str]:
    return [listed.source.name for listed in list_pictures(path)]


def labels(path: Path) -> list[int | None]:
    return [listed.label for listed in list_pictures(path)]


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def shards(root: Path, pictures: Path, of: Sequence[str] = PETS, size: int = 2) -> Path:
    """The pictures in archives of `size` samples, with the class of their folder."""
    for number, first in enumerate(range(0, len(of), size)):
        members = []
        for index, name in enumerate(of[first : first + size], start=first):
            members.append((f"{index:04d}.cls", str(int(name.startswith("sea"))).encode()))
            members.append((f"{index:04d}.png", (pictures / name).read_bytes()))
        write_tar(root / f"pets-{number:03d}.tar", members)
    return root


def test_one_picture_is_a_list_of_one(save_pictures: SavePictures) -> None:
    path = save_pictures(*PETS) / "cat" / "1.png"
    listing = list_pictures(path)
    assert (names(path), len(listing), listing.labelled, listing.class_names) == ([str(path)], 1, False, None)


def test_a_folder_of_classes_keeps_its_labels(save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS)
    assert list_pictures(root).class_names == ("cat", "sea otter")
    assert names(root) == [str(root / name) for name in PETS] and labels(root) == [0, 0, 0, 1, 1]


def test_a_flat_or_a_deep_folder_has_no_labels(save_pictures: SavePictures) -> None:
    root = save_pictures("b.png", "a/deep/c.png", "a/d.png", "a.png", "a-b/e.png", ".hidden/e.png")
    found = [str(Path(name).relative_to(root)) for name in names(root)]
    assert found == sorted(found, key=lambda name: Path(name).parts) and len(found) == 5
    assert list_pictures(root).class_names is None and not list_pictures(root).labelled


def test_stretches_of_a_listing_put_together_are_the_whole(save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS)
    listing = list_pictures(root)
    parts = [list(itertools.islice(listing, first, first + 2)) for first in range(0, 5, 2)]
    assert [listed for part in parts for listed in part] == list(listing)


def test_a_list_of_paths_is_read_from_its_own_folder(save_pictures: SavePictures, tmp_path: Path) -> None:
    root = save_pictures(*PETS)
    listed = root / "some.txt"
    listed.write_text(f"sea_otter/a.png\n\n{root / PETS[0]}\r\n", encoding="utf-8-sig")
    assert names(listed) == [str(root / "sea_otter" / "a.png"), str(root / PETS[0])]
    assert not list_pictures(listed).labelled


def test_pictures_that_come_or_go_meanwhile_are_noticed(save_pictures: SavePictures) -> None:
    root = save_pictures(*PETS)
    listing = list_pictures(root)
    (root / PETS[1]).unlink()
    with pytest.raises(UserError, match="pictures: pictures came or went while they were read"):
        list(listing)
    listing = list_pictures(root)
    (root / "cat" / "new.png").write_bytes(b"")
    with pytest.raises(UserError, match="came or went"):
        list(listing)


def test_every_form_gives_the_features_of_the_folder(
    save_pictures: SavePictures, tmp_path: Path, pocket: Backbone
) -> None:
    root = save_pictures(*PETS)
    plain = load_input(root, pocket)
    (root / "list.txt").write_text("\n".join(PETS))
    shards(tmp_path / "shards", root)
    for form in ("list.txt", "shards", "shards/pets-{000..002}.tar"):
        read = load_input(tmp_path / form if form.startswith("shards") else root / form, pocket)
        assert torch.equal(read.features, plain.features) and torch.equal(read.norms, plain.norms), form
    assert read.paths == tuple(f"{number:04d}.png" for number in range(5))
    assert read.labels is not None and read.labels.tolist() == [0, 0, 0, 1, 1]
    assert read.pictures is not None and next(iter(read.pictures)).size == (10, 12)
    one = load_input(tmp_path / "shards" / "pets-001.tar", pocket)
    assert torch.equal(one.features, plain.features[2:4])


def test_shards_without_classes_have_no_labels(save_pictures: SavePictures, tmp_path: Path) -> None:
    picture = (save_pictures(*PETS) / PETS[0]).read_bytes()
    members = [("a/1.png", picture), ("a/1.json", b"{}"), ("a/._1.png", b"junk"), ("a/2.left.png", picture)]
    path = write_tar(tmp_path / "bare.tar", members)
    assert names(path) == ["a/1.png", "a/2.left.png"] and labels(path) == [None, None]


def test_shards_that_cannot_be_used_are_named(save_pictures: SavePictures, tmp_path: Path) -> None:
    picture = (save_pictures(*PETS) / PETS[0]).read_bytes()

    def refused(path: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as refusal:
            list_pictures(path)
        assert "\n" not in str(refusal.value)

    half = write_tar(tmp_path / "half.tar", [("0.png", picture), ("0.cls", b"1"), ("1.png", picture)])
    refused(half, r"half\.tar: member 1\.png: no member \.cls beside it, and 1 of 2 pictures have one")
    words = write_tar(tmp_path / "words.tar", [("0.png", picture), ("0.cls", b"cat")])
    refused(words, r"words\.tar: member 0\.cls: 'cat' is no class")
    refused(write_tar(tmp_path / "none.tar", [("0.txt", b"x")]), "no pictures in its 1 archives")
    whole = write_tar(tmp_path / "cut.tar", [("0.png", picture), ("1.png", picture * 50)])
    whole.write_bytes(whole.read_bytes()[:4000])
    refused(whole, r"cut\.tar: damaged or no plain tar archive")
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    refused(tmp_path / "junk.tar", r"junk\.tar: damaged or no plain tar archive")
    refused(tmp_path / "gone-{0..2}.tar", r"gone-0\.tar: no such archive")
    refused(tmp_path / "gone-{2..0}.tar", r"\{2\.\.0\} is no range of archives")
    (tmp_path / "pets.tar.gz").write_bytes(b"")
    refused(tmp_path / "pets.tar.gz", r"pets\.tar\.gz: a compressed archive; unpack it")


def test_an_archive_that_is_cut_after_it_was_listed_is_named(
    save_pictures: SavePictures, tmp_path: Path
) -> None:
    picture = (save_pictures(*PETS) / PETS[0]).read_bytes()
    path = write_tar(tmp_path / "a.tar", [("0.png", picture), ("1.png", picture)])
    sources = [listed.source for listed in list_pictures(path)]
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(UserError, match=r"a\.tar: member 1\.png: the archive ends before it"):
        sources[1].read()


def test_lists_and_folders_that_cannot_be_used_are_named(save_pictures: SavePictures, tmp_path: Path) -> None:
    root = save_pictures(*PETS)
    for content, message in {
        b"cat/1.png\ncat/9.png\n": r"list\.txt line 2: no such picture .*9\.png",
        b"\n\n": r"list\.txt: an empty list",
        b"\xff\xfe\xff": r"list\.txt: cannot be read",
    }.items():
        (root / "list.txt").write_bytes(content)
        with pytest.raises(UserError, match=message):
            list_pictures(root / "list.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures in this folder"):
        list_pictures(tmp_path / "empty")
    with pytest.raises(UserError, match="gone: no such file or folder"):
        list_pictures(tmp_path / "gone")
