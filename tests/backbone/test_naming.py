from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bayes_clip.backbone import hub
from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.backbone.factory import agreed_preprocessing
from bayes_clip.errors import UserError


def lora_folder(folder: Path, layer: str = "visual.transformer.resblocks.0.mlp.c_fc") -> Path:
    folder.mkdir()
    tensors = {f"base_model.model.{layer}.lora_A.weight": torch.ones(2, 16)}
    tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.ones(64, 2)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4, "r": 2}))
    return folder


def test_a_folder_is_a_backbone_by_every_name_and_wherever_it_is_moved(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(model_folder.parent)
    names = (str(model_folder), "my_clip", "my_clip/", f"local-dir:{model_folder}", "local-dir:my_clip")
    loaded = [load_backbone(name) for name in (*names, "my_clip/open_clip_config.json")]
    assert {one.asked for one in loaded} == {f"local-dir:{model_folder}"}
    assert {one.pretrained for one in loaded} == {None}
    moved = shutil.move(model_folder, model_folder.with_name("elsewhere"))
    assert {one.fingerprint for one in loaded} == {load_backbone(str(moved)).fingerprint}


def test_a_folder_without_weights_is_never_left_random(model_folder: Path, tiny_weights: Path) -> None:
    (model_folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"my_clip: one file of weights belongs there \(none\)"):
        load_backbone(str(model_folder))
    named = load_backbone(str(model_folder), str(tiny_weights))
    assert named.pretrained == str(tiny_weights)
    for name in ("a.safetensors", "b.safetensors"):
        shutil.copy(tiny_weights, model_folder / name)
    with pytest.raises(UserError, match=r"one file of weights .*\(a\.safetensors, b\.safetensors\)"):
        load_backbone(str(model_folder))


def test_folders_that_are_no_models_are_refused(model_folder: Path) -> None:
    file = model_folder / "open_clip_config.json"
    for content, said in (("{", "no JSON"), ("{}", 'needs "model_cfg"'), ('{"model_cfg": {}}', "needs")):
        file.write_text(content)
        with pytest.raises(UserError, match=f"open_clip_config.json: .*{said}"):
            load_backbone(str(model_folder))
    file.unlink()
    with pytest.raises(UserError, match=r"my_clip: has no open_clip_config\.json"):
        load_backbone(str(model_folder))
    with pytest.raises(UserError, match=r"my_clip/gone: no such folder"):
        load_backbone(str(model_folder / "gone"))


def test_a_model_that_brings_its_weights_takes_no_tag(model_folder: Path) -> None:
    with pytest.raises(UserError, match=r"--pretrained openai: no such file; local-dir:.* its own weights"):
        load_backbone(str(model_folder), "openai")


def test_preprocessing_is_part_of_the_fingerprint(
    tiny_weights: Path, tmp_path: Path, make_folder: Any
) -> None:
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "mean": {"mean": [0.5, 0.5, 0.5]},
        "std": {"std": [0.5, 0.5, 0.5]},
        "interpolation": {"interpolation": "bilinear"},
        "resize": {"resize_mode": "squash"},
    }
    found = {
        load_backbone(str(make_folder(tmp_path / name, tiny_weights, **way))).fingerprint
        for name, way in ways.items()
    }
    assert len(found) == len(ways)


def test_a_checkpoint_file_is_seen_as_the_tags_of_its_architecture_are() -> None:
    siglip = agreed_preprocessing("ViT-B-16-SigLIP")
    assert siglip["image_mean"] == (0.5, 0.5, 0.5) and siglip["image_resize_mode"] == "squash"
    assert agreed_preprocessing("ViT-L-14") == {}  # OpenAI's and others' differ
    assert agreed_preprocessing("tiny_clip") == {}


def test_a_lora_adapter_is_merged_and_known_again(
    tiny: Backbone, tiny_config: Path, tiny_weights: Path, tmp_path: Path, model_folder: Path
) -> None:
    adapter = lora_folder(tmp_path / "lora")
    merged = load_backbone(str(tiny_config), f"{tiny_weights}+{adapter}")
    change = 4 / 2 * torch.ones(64, 2) @ torch.ones(2, 16)
    layer = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    torch.testing.assert_close(merged.model.state_dict()[layer], tiny.model.state_dict()[layer] + change)
    assert merged.fingerprint != tiny.fingerprint
    assert load_backbone(merged.asked, merged.pretrained).fingerprint == merged.fingerprint
    own = load_backbone(str(model_folder), str(adapter))
    assert load_backbone(own.asked, own.pretrained).fingerprint == own.fingerprint
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.equal(own.encode_pixels(pixels), merged.encode_pixels(pixels))


def test_pocket_clip_takes_an_adapter_and_keeps_its_words(tmp_path: Path) -> None:
    adapter = lora_folder(tmp_path / "lora", "transformer.resblocks.0.mlp.c_fc")
    file = adapter / "adapter_model.safetensors"
    layer = "base_model.model.transformer.resblocks.0.mlp.c_fc"
    shapes = {"A": (2, 48), "B": (192, 2)}
    save_file({f"{layer}.lora_{side}.weight": torch.ones(shape) for side, shape in shapes.items()}, file)
    plain, changed = load_backbone(), load_backbone("pocket_clip", str(adapter))
    assert changed.fingerprint != plain.fingerprint and changed.vocabulary == plain.vocabulary
    assert plain.asked == changed.asked == "pocket_clip" and plain.pretrained is None
    assert load_backbone(changed.asked, changed.pretrained).fingerprint == changed.fingerprint


def test_adapters_need_their_base(tiny_config: Path, tiny_weights: Path, tmp_path: Path) -> None:
    adapter = lora_folder(tmp_path / "lora")
    with pytest.raises(UserError, match=r"a LoRA folder, and its base is not named; write TAG\+"):
        load_backbone(str(tiny_config), str(adapter))
    with pytest.raises(UserError, match=r"behind the \+ belongs a LoRA folder, and 'gone' has no"):
        load_backbone(str(tiny_config), f"{tiny_weights}+gone")
    with pytest.raises(UserError, match=r"a folder without adapter_config\.json"):
        load_backbone(str(tiny_config), str(tmp_path))
    with pytest.raises(UserError, match="It is a LoRA folder"):
        load_backbone(str(adapter))


def test_a_hub_model_that_cannot_be_fetched_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "_has_address", lambda host: False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = (
        r"hf-hub:someone/some-clip: could not be fetched.*hf download someone/some-clip --local-dir FOLDER"
    )
    with pytest.raises(UserError, match=message) as refusal:
        load_backbone("hf-hub:someone/some-clip")
    assert "\n" not in str(refusal.value) and not hub.constants.HF_HUB_OFFLINE
    with pytest.raises(UserError, match="write hf-hub:ORGANISATION/MODEL"):
        load_backbone("hf-hub:some-clip")


def test_a_hub_model_whose_weights_are_missing_is_not_left_random(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    config = json.loads((model_folder / "open_clip_config.json").read_text())

    def no_weights(*_: object, **__: object) -> str:
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr("open_clip.factory._get_hf_config", lambda *_, **__: config)
    monkeypatch.setattr("open_clip.factory.download_pretrained_from_hf", no_weights)
    with pytest.raises(UserError, match="could not be fetched or loaded"):
        load_backbone("hf-hub:someone/some-clip")
