"""Where the model programs and the embedded backbone lie, in a wheel and in a checkout."""

from __future__ import annotations

from pathlib import Path

from bayes_clip.errors import UserError


def models_folder(package: Path | None = None) -> Path:
    """Return the folder of model programs and of ``pocket_clip/``.

    It is the package's own ``models/`` where that exists (wheel), else the ``models/`` beside
    ``pyproject.toml`` (checkout, editable install). `package` is the package's folder, for tests.

    Raises:
        UserError: neither exists, that is, the installation is incomplete.
    """
    package = package or Path(__file__).resolve().parent
    own = package / "models"
    if own.is_dir():
        return own
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "models").is_dir():
        return checkout / "models"
    raise UserError(f"no models/ folder in {package} or beside it: the installation is incomplete; reinstall")
