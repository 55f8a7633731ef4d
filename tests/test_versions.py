from __future__ import annotations

import platform

import pytest
import torch

import bayes_clip
from bayes_clip import versions


def test_versions_are_those_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGES", ("torch", "no-such-package"))
    found = versions.installed_versions()
    assert found["bayes_clip"] == bayes_clip.__version__
    assert found["python"] == platform.python_version()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["no-such-package"] == "not installed"
