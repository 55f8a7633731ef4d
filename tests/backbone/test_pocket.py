from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bayes_clip.backbone import pocket
from bayes_clip.backbone.encoder import load_backbone
from bayes_clip.errors import UserError


def test_pocket_clip_loads_what_its_folder_holds() -> None:
    folder = pocket.pocket_folder()
    backbone = load_backbone()
    assert (backbone.name, backbone.pretrained) == ("pocket_clip", None)
    assert backbone.preprocessing["size"] in (32, (32, 32))
    with safe_open(pocket.weights_file(folder), framework="pt") as weights:
        stored = {key: weights.get_tensor(key).float() for key in weights.keys()}  # noqa: SIM118
    state = backbone.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in stored.items() if value.ndim)
    assert backbone.logit_scale == pytest.approx(float(stored["logit_scale"].exp()))


def test_pocket_clip_is_small_enough_to_embed() -> None:
    assert pocket.weights_file(pocket.pocket_folder()).stat().st_size <= 10_000_000


def test_pocket_clip_knows_the_words_of_its_templates_and_tasks() -> None:
    backbone = load_backbone()
    assert backbone.unknown_words(["a red circle", "the digit seven"]) == []
    assert backbone.unknown_words(backbone.default_templates) == []
    assert backbone.unknown_words(["a zebra and a Gnu, a zebra"]) == ["zebra", "gnu"]


def test_settings_are_read_from_the_folder(tmp_path: Path) -> None:
    assert pocket.preprocessing(tmp_path) == {}
    assert pocket.default_templates(tmp_path) is None
    (tmp_path / "preprocess.json").write_text(
        json.dumps({"mean": [0, 0, 0], "interpolation": "bilinear", "size": 9})
    )
    (tmp_path / "templates.json").write_text(json.dumps(["a {}"]))
    assert pocket.preprocessing(tmp_path) == {"image_mean": [0, 0, 0], "image_interpolation": "bilinear"}
    assert pocket.default_templates(tmp_path) == ("a {}",)


def test_an_incomplete_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pocket_clip").mkdir()
    monkeypatch.setattr(pocket, "models_folder", lambda: tmp_path)
    with pytest.raises(UserError, match=r"pocket_clip\.json: missing"):
        load_backbone()
