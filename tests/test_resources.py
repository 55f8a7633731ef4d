from __future__ import annotations

from pathlib import Path

import pytest

from bayes_clip.errors import UserError
from bayes_clip.resources import models_folder


def test_a_wheel_has_models_inside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "bayes_clip"
    (package / "models").mkdir(parents=True)
    (tmp_path / "models").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert models_folder(package) == package / "models"


def test_a_checkout_has_models_beside_pyproject(tmp_path: Path) -> None:
    package = tmp_path / "bayes_clip"
    package.mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert models_folder(package) == tmp_path / "models"


def test_a_stranger_called_models_is_not_ours(tmp_path: Path) -> None:
    package = tmp_path / "bayes_clip"
    package.mkdir()
    (tmp_path / "models").mkdir()  # as in site-packages: no pyproject.toml beside it
    with pytest.raises(UserError, match="reinstall"):
        models_folder(package)


def test_this_installation_has_models() -> None:
    assert models_folder().is_dir()
