from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bayes_clip.backbone.encoder import Backbone, load_backbone

SavePictures = Callable[..., Path]


@pytest.fixture(scope="session")
def pocket() -> Backbone:
    return load_backbone()


@pytest.fixture
def save_pictures(tmp_path: Path) -> SavePictures:
    """Writes small random pictures at the given paths under a new folder and returns that folder."""

    def save(*names: str, root: str = "pictures") -> Path:
        random = np.random.default_rng(len(names))
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
        return tmp_path / root

    return save
