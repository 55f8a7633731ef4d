from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.naming import register_config
from bayes_clip.errors import UserError


def test_a_config_is_registered_under_its_stem_however_often(tiny_config: Path) -> None:
    assert register_config(tiny_config) == register_config(tiny_config) == "tiny_clip"
    assert "tiny_clip" in open_clip.list_models()


def test_a_config_must_not_take_the_name_of_another_model(tiny_config: Path, tmp_path: Path) -> None:
    taken = tmp_path / "ViT-B-32.json"
    taken.write_text(tiny_config.read_text())
    with pytest.raises(UserError, match="another model by the name 'ViT-B-32'"):
        register_config(taken)
    assert open_clip.get_model_config("ViT-B-32")["embed_dim"] == 512


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"embed_dim": 8})])
def test_other_files_are_no_configs(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"other\.json: (no JSON|not an open_clip model config)"):
        register_config(path)
    with pytest.raises(UserError, match="no such open_clip config"):
        register_config(tmp_path / "gone.json")


def test_weights_load_from_safetensors_and_from_torch_alike(
    tiny: Backbone, tiny_config: Path, tmp_path: Path
) -> None:
    torch.save(tiny.model.state_dict(), tmp_path / "weights.pt")
    other = load_backbone(str(tiny_config), str(tmp_path / "weights.pt"))
    assert other.fingerprint == tiny.fingerprint


def test_an_unknown_architecture_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"--backbone ViT-B-33.*Did you mean 'ViT-B-"):
        load_backbone("ViT-B-33", "openai")


def test_weights_must_be_named() -> None:
    with pytest.raises(
        UserError, match=r"add --pretrained TAG or FILE \(tags of ViT-B-32: .*laion2b_s34b_b79k"
    ):
        load_backbone("ViT-B/32")


def test_an_unknown_tag_is_refused_with_the_tags_there_are() -> None:
    with pytest.raises(
        UserError, match=r"neither a tag nor a checkpoint file \(tags of ViT-B-32: "
    ) as refusal:
        load_backbone("ViT-B-32", "laion2b_s34b_b79")
    assert "Did you mean 'laion2b_s34b_b79k'?" in str(refusal.value)


def test_weights_of_another_model_are_refused(tiny: Backbone, tiny_config: Path, tmp_path: Path) -> None:
    state = tiny.model.state_dict()
    state.pop("text_projection")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: these weights do not fit tiny_clip") as refusal:
        load_backbone(str(tiny_config), str(tmp_path / "other.pt"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["noise.pt", "noise.safetensors", "noise.npz"])
def test_files_that_are_no_weights_are_refused(name: str, tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(
        UserError, match=f"{name}: (no file of tensors|cannot be read|these weights do not fit)"
    ):
        load_backbone(str(tiny_config), str(tmp_path / name))


def test_pickled_objects_are_not_run(tiny_config: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return witness.touch, ()

    torch.save({"visual.proj": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(UserError, match=r"bomb\.pt: no file of tensors alone \(pickled objects"):
        load_backbone(str(tiny_config), str(tmp_path / "bomb.pt"))
    assert not witness.exists()


def test_a_failed_download_is_one_line_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_network(*_: object, **__: object) -> str:
        logging.warning("retrying")
        raise OSError("Name or service not known\nand a long story")

    monkeypatch.setattr("open_clip.factory.download_pretrained", no_network)
    with pytest.raises(
        UserError, match=r"could not be fetched.*Name or service not known\).*--pretrained FILE"
    ) as e:
        load_backbone("ViT-B-32", "laion2b_s34b_b79k")
    assert "\n" not in str(e.value)
    assert caplog.text == ""
    assert logging.root.manager.disable == logging.NOTSET


def test_a_missing_local_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"local-dir:.*gone: no such folder"):
        load_backbone(f"local-dir:{tmp_path / 'gone'}")


def test_an_unknown_device_is_refused(tiny_config: Path, tiny_weights: Path) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"--device {device}: not available"):
            load_backbone(str(tiny_config), str(tiny_weights), device=device)
