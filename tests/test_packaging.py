"""What the wheel, the editable install and the sdist hold, and that the wheel works outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("hatchling", reason="hatchling is part of the [test] extra")


def build(kind: str, folder: Path, source: Path = ROOT) -> Path:
    """Build with the project's own backend, without network; `kind` is wheel, editable or sdist."""
    code = f"import sys, hatchling.build as backend; print(backend.build_{kind}(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    return folder / done.stdout.strip().splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


def tracked(folder: str, suffix: str = "") -> set[str]:
    """Files under `folder` of the checkout that are not caches, relative to its root."""
    found = (path for path in (ROOT / folder).rglob(f"*{suffix}") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def test_wheel_has_no_other_top_level_name(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in contents(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"bayes_clip"}


def test_wheel_holds_the_whole_package_and_the_models(wheel: Path) -> None:
    names = set(contents(wheel))
    assert tracked("bayes_clip", ".py") | tracked("bayes_clip", ".j2") <= names
    for needed in ("linear_probe.py", "pocket_clip/pocket_clip.json", "pocket_clip/vocabulary.json"):
        assert f"bayes_clip/models/{needed}" in names
    assert "bayes_clip/models/pocket_clip/pocket_clip.safetensors" in names
    assert {name for name in names if name.endswith(".pyc")} == set()


def test_editable_install_is_only_a_path(tmp_path: Path) -> None:
    files = {
        name: text
        for name, text in contents(build("editable", tmp_path)).items()
        if ".dist-info/" not in name
    }
    assert [Path(name).suffix for name in files] == [".pth"]
    assert Path(next(iter(files.values())).decode().strip()) == ROOT


def test_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert contents(build("wheel", tmp_path, unpacked)) == contents(wheel)


def test_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "from bayes_clip.resources import models_folder as folder; print(folder())")
    assert Path(where.strip()) == site / "bayes_clip" / "models"
    assert "linear_probe" in run("-m", "bayes_clip.cli", "models")
    run(
        "-m",
        "bayes_clip.cli",
        "compare",
        "digits",
        "--shots",
        "1",
        "--engines",
        "zero_shot,map",
        "--out",
        "out",
    )
    assert (tmp_path / "out" / "metrics.csv").is_file()
