from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from bayes_clip.backbone.encoder import Backbone, load_backbone

TINY: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model config of a CLIP small enough to be made up on the spot."""
    path = tmp_path_factory.mktemp("tiny") / "tiny_clip.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_weights(tiny_config: Path) -> Path:
    """Random weights that fit `tiny_config`, drawn from a fixed seed."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY)
    path = tiny_config.with_name("weights.safetensors")
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items() if key != "attn_mask"}, path
    )
    return path


@pytest.fixture(scope="session")
def tiny(tiny_config: Path, tiny_weights: Path) -> Backbone:
    return load_backbone(str(tiny_config), str(tiny_weights))


@pytest.fixture
def model_folder(tmp_path: Path, tiny_weights: Path) -> Path:
    """A folder of a whole model, as open_clip's local-dir: and the hub have them."""
    return make_model_folder(tmp_path / "my_clip", tiny_weights)


def make_model_folder(folder: Path, weights: Path, **preprocessing: Any) -> Path:
    folder.mkdir()
    config = {"model_cfg": TINY, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(weights, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def make_folder() -> Any:
    return make_model_folder
