"""The commands features and store: every form of pictures, what is kept, and one line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import Cli, commands
from coop_sets import save_shapes

from bayes_clip.data.store_place import store_folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line in a folder with six pictures."""
    save_shapes(tmp_path / "photos" / "star", "star", 3)
    save_shapes(tmp_path / "photos" / "ring", "ring", 3)
    return commands(tmp_path, capsys, monkeypatch)


def test_features_are_kept_listed_used_and_pruned(cli: Cli, tmp_path: Path) -> None:
    first = cli("features", "photos", "--out", "a.npz", "--store", "kept")
    assert first.status == 0 and "6 rows of 128 features in a.npz (the encoder at work" in first.output
    again = cli("features", "photos", "--out", "b.npz", "--store", "kept")
    assert "(all of them kept from before)" in again.output
    bare = cli("features", "photos", "--out", "c.npz", "--no-store")
    assert bare.status == 0 and "the encoder at work" in bare.output
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes() == Path("c.npz").read_bytes()
    listed = cli("store", "--store", "kept")
    assert "pocket_clip" in listed.output and "6 rows" in listed.output
    gone = cli("store", "--store", "kept", "--prune", "--max-size", "0")
    assert gone.status == 0 and "6 rows forgotten" in gone.output
    assert cli("store", "--store", "nowhere").output.startswith("0 rows, 0 B in nowhere")
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_tasks_of_pictures_use_the_store(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAYES_CLIP_CACHE", "kept")
    assert cli("fit", "photos", "--engine", "map", "--out", "posterior").status == 0
    assert "6 rows" in cli("store").output
    said = cli("features", "photos", "--out", "a.npz").output
    assert "(all of them kept from before)" in said
    Path("paths.txt").write_text("photos/star/star_0.png\n")
    outcome = cli("predict", "posterior", "paths.txt", "--out", "p.csv")
    assert outcome.status == 0 and "photos/star/star_0.png" in Path("p.csv").read_text()


def test_feature_files_are_copied_from_one_form_to_the_other(cli: Cli) -> None:
    np.savez("f.npz", features=np.eye(3, dtype=np.float32))
    assert (
        "3 rows of 3 features in f.safetensors" in cli("features", "f.npz", "--out", "f.safetensors").output
    )


def test_what_cannot_be_is_one_line(cli: Cli) -> None:
    Path("list.txt").write_text("photos/star/gone.png\n")
    Path("file").write_text("")
    (Path("kept") / "x").mkdir(parents=True)
    (Path("kept") / "junk.sqlite").write_bytes(b"junk" * 1000)
    for arguments, said in {
        ("features", "list.txt", "--out", "a.npz"): "list.txt line 1: no such picture photos/star/gone.png",
        ("features", "s-{0..1}.tar", "--out", "a.npz"): "s-0.tar: no such archive",
        ("features", "photos", "--out", "a.npz", "--store", "file"): "--store file: a file, not a folder",
        ("features", "photos", "--out", "a.npz", "--store", "kept", "--no-store"): "ask for one of them",
        ("features", "photos", "--out", "a.npz", "--no-store", "--store", "kept"): "ask for one of them",
        ("store",): "BAYES_CLIP_CACHE is empty",
        ("store", "--store", "kept"): "junk.sqlite: damaged feature store",
        ("store", "--store", "other", "--prune"): "--prune: say what goes",
        ("store", "--store", "other", "--older-than", "3"): "add --prune",
        ("store", "--store", "other", "--prune", "--max-size", "much"): "--max-size much: not a size",
        ("store", "--store", "other", "--prune", "--encoder", "ab"): "no features of it are kept",
    }.items():
        outcome = cli(*arguments)
        assert (outcome.status, outcome.errors.count("\n")) == (2, 1), (arguments, outcome)
        assert said in outcome.errors, (arguments, outcome)
    assert not Path("a.npz").exists() and store_folder() is None  # what a command chose ends with it
