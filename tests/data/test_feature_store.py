"""Features on disk: computed once, the same bit for bit, safe for two processes and a kill, prunable."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.data import store_contents
from bayes_clip.data.encode import encode_files
from bayes_clip.data.encode_stream import batch_size
from bayes_clip.data.feature_store import FeatureStore, Made, digest, opened_store
from bayes_clip.data.store_contents import list_kept, prune
from bayes_clip.data.store_place import store_folder, use_store
from bayes_clip.errors import UserError

SavePictures = Callable[..., Path]
NAMES = tuple(f"{number:02d}.png" for number in range(10))
WRITER = """
import sys
import numpy as np
from pathlib import Path
from bayes_clip.data.feature_store import FeatureStore, Made, digest
store = FeatureStore(Path(sys.argv[1]), 4)
for number in range(200):
    common, own = f"common {number}".encode(), f"{sys.argv[2]} {number}".encode()
    rows = [Made(digest(content), np.full(4, number, np.float32)) for content in (common, own)]
    store.add(rows, [((content.decode(), 1, 1), digest(content)) for content in (common, own)])
    print(number, flush=True)
store.close()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    use_store(tmp_path / "store")
    yield tmp_path / "store"
    use_store("default")


@pytest.fixture
def paths(save_pictures: SavePictures) -> list[Path]:
    root = save_pictures(*NAMES)
    for path in root.iterdir():
        os.utime(path, (1e9, 1e9))  # long ago, so that size and time are believed
    return [root / name for name in NAMES]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, pocket: Backbone) -> list[int]:
    """How many pictures each call of the encoder had, those that fill up its batches too."""
    counts: list[int] = []
    plain = Backbone.encode_pixels

    def counted(self: Backbone, pixels: Iterator[torch.Tensor], **options: int) -> torch.Tensor:
        given = list(pixels)
        counts.append(len(given))
        return plain(self, given, **options)

    monkeypatch.setattr(Backbone, "encode_pixels", counted)
    return counts


def writer(file: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, file, name], stdout=subprocess.PIPE, text=True)


def test_no_picture_is_encoded_twice_wherever_it_lies(
    folder: Path, paths: list[Path], pocket: Backbone, encoded: list[int]
) -> None:
    first = encode_files(pocket, paths[:3])
    moved = paths[1].rename(paths[1].with_name("moved.png"))
    again = encode_files(pocket, [paths[2], moved, paths[3], paths[0]])
    assert [count // batch_size(pocket) for count in encoded if count] == [1, 1]
    assert torch.equal(again.features[[3, 1, 0]], first.features)
    encode_files(pocket, [moved, *paths[:1], *paths[2:4]])
    assert sum(encoded) == 2 * batch_size(pocket)
    paths[0].write_bytes(paths[5].read_bytes())  # another picture by the same name
    assert torch.equal(encode_files(pocket, paths[:1]).features, encode_files(pocket, paths[5:6]).features)
    assert [one.rows for one in list_kept(folder)] == [5]


def test_a_file_that_is_known_is_not_even_read(
    folder: Path, paths: list[Path], pocket: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode_files(pocket, paths)
    monkeypatch.setattr("bayes_clip.data.sources.read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert torch.equal(encode_files(pocket, paths).features, first.features)


def test_features_are_the_same_bit_for_bit_kept_or_not_and_whatever_lies_beside(
    folder: Path, paths: list[Path], pocket: Backbone
) -> None:
    use_store(None)
    whole = encode_files(pocket, paths).features
    alone = torch.cat([encode_files(pocket, [path]).features for path in paths])
    use_store(folder)
    parts = torch.cat([encode_files(pocket, part).features for part in (paths[:7], paths[7:])])
    from_store = encode_files(pocket, paths).features
    assert all(torch.equal(whole, other) for other in (alone, parts, from_store))


def test_thumbnails_come_without_encoding(
    folder: Path, paths: list[Path], pocket: Backbone, encoded: list[int]
) -> None:
    first = encode_files(pocket, paths, with_thumbnails=True)
    again = encode_files(pocket, paths, with_thumbnails=True)
    assert sum(encoded) == batch_size(pocket)
    assert first.thumbnails is not None and again.thumbnails is not None
    assert torch.equal(first.thumbnails, again.thumbnails)


def test_broken_pictures_are_not_kept(folder: Path, paths: list[Path], pocket: Backbone) -> None:
    good = paths[1].read_bytes()
    paths[1].write_bytes(b"broken")
    with pytest.raises(UserError, match=r"01\.png: no picture"):
        encode_files(pocket, paths[:3])
    assert encode_files(pocket, paths[:3], skip_broken=True).kept == (0, 2)
    assert encode_files(pocket, paths[:3], skip_broken=True).kept == (0, 2)
    with pytest.raises(UserError, match="none of 1 pictures can be read"):
        encode_files(pocket, paths[1:2], skip_broken=True)
    paths[1].write_bytes(good)
    assert encode_files(pocket, paths[:3]).kept == (0, 1, 2)


def test_two_processes_write_at_once_and_a_third_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    writers = [writer(file, name) for name in ("one", "two", "killed")]
    killed = writers[2].stdout
    assert killed is not None and killed.readline() == "0\n"
    writers[2].kill()
    assert [process.wait(timeout=120) for process in writers[:2]] == [0, 0]
    for process in writers:
        process.communicate()
    store = FeatureStore(file, 4)
    for name in ("one", "two", "common"):
        for number in range(200):
            content = f"{name} {number}"
            row = store.find(digest(content.encode()))
            assert row is not None and row.tolist() == [number] * 4
            assert store.digest_of((content, 1, 1)) == digest(content.encode())
            assert store.digest_of((content, 2, 1)) is None
    store.close()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_encoders_do_not_share_rows(folder: Path, paths: list[Path], pocket: Backbone) -> None:
    from dataclasses import replace

    encode_files(pocket, paths[:2])
    encode_files(replace(pocket, fingerprint="other"), paths[:2])
    assert [one.rows for one in list_kept(folder)] == [2, 2]


def test_pruning_by_age_encoder_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Made(digest(bytes([number])), np.zeros(1000, np.float32)) for number in range(200)]
    now = 2e9
    for name in ("old", "new"):
        store = FeatureStore(tmp_path / f"{name}.sqlite", 1000)
        store.describe(fingerprint=name, dimension=1000)
        monkeypatch.setattr("time.time", lambda name=name: now - 30 * 86400 * (name == "old"))
        store.add(rows, [(("a", 1, 1), rows[0].digest)])
        store.close()

    def left() -> dict[str, int]:
        return {one.fingerprint: one.rows for one in list_kept(tmp_path)}

    with pytest.raises(UserError, match="--prune: say what goes"):
        prune(tmp_path)
    with pytest.raises(UserError, match=r"--encoder 7: no features of it are kept; there are: new, old"):
        prune(tmp_path, encoder="7")
    assert prune(tmp_path, older_than_days=31) == 0
    size = sum(one.size for one in list_kept(tmp_path))
    assert prune(tmp_path, largest=size - 100_000) == 200 and left() == {"new": 200, "old": 0}
    assert sum(one.size for one in list_kept(tmp_path)) < size - 100_000
    assert prune(tmp_path, older_than_days=1, encoder="new") == 0
    assert prune(tmp_path, encoder="ne") == 200 and left() == {"new": 0, "old": 0}
    with closing(store_contents.connected(tmp_path / "old.sqlite")) as connection:
        assert connection.execute("SELECT COUNT(*) FROM files").fetchone() == (0,)


def test_stores_that_cannot_be_used_are_named(tmp_path: Path, pocket: Backbone) -> None:
    (tmp_path / "junk.sqlite").write_bytes(b"junk" * 1000)
    with pytest.raises(UserError, match=r"junk\.sqlite: damaged feature store .*remove it"):
        FeatureStore(tmp_path / "junk.sqlite", 4)
    with pytest.raises(UserError, match="damaged feature store"):
        list_kept(tmp_path)
    store = FeatureStore(tmp_path / "other.sqlite", 4)
    store.add([Made(digest(b"a"), np.zeros(3, np.float32))], [])
    with pytest.raises(UserError, match=r"other\.sqlite: damaged feature store \(a row is cut short\)"):
        store.find(digest(b"a"))
    store.describe(format=9)
    store.close()
    with pytest.raises(UserError, match="format 9"):
        FeatureStore(tmp_path / "other.sqlite", 4)
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(UserError, match="cannot keep features there"),
        opened_store(tmp_path / "file", pocket),
    ):
        pass


def test_a_cache_folder_that_nobody_asked_for_is_done_without(
    paths: list[Path], pocket: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.delenv("BAYES_CLIP_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="features are not kept: .*file/bayes_clip: cannot keep"):
        assert len(encode_files(pocket, paths[:1]).features) == 1


def test_where_features_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store_folder() is None  # tests keep none unless they ask for it
    monkeypatch.setenv("BAYES_CLIP_CACHE", str(tmp_path))
    assert store_folder() == tmp_path
    monkeypatch.delenv("BAYES_CLIP_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store_folder() == tmp_path / "cache" / "bayes_clip"
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store_folder() == tmp_path / "Library" / "Caches" / "bayes_clip"
