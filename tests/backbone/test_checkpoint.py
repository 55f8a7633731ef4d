from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from bayes_clip.backbone.architectures import like
from bayes_clip.backbone.checkpoint import load_into, read_state
from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.errors import UserError

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(tiny: Backbone) -> State:
    return {key: values.clone().contiguous() for key, values in tiny.model.state_dict().items()}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": values for key, values in state.items()}


def shifted(state: State) -> State:
    return {key: values + 1 for key, values in state.items()}


WRAPPED: dict[str, Any] = {
    "bare": lambda state: state,
    "open_clip's trainer": lambda state: {"epoch": 3, "state_dict": prefixed(state, "module.")},
    "a model": lambda state: {"model": OrderedDict(state), "optimizer": {"state": {}}},
    "compiled and distributed": lambda state: {"state_dict": prefixed(state, "module._orig_mod.")},
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "global_step": 7},
    "torch's averaged model": lambda state: prefixed(state, "module.") | {"n_averaged": torch.tensor(5)},
    "deep": lambda state: {"model": {"state_dict": prefixed(state, "clip_model.")}},
}


@pytest.mark.parametrize("what", WRAPPED)
def test_wrappers_are_taken_off(what: str, state: State, tmp_path: Path) -> None:
    torch.save(WRAPPED[what](state), tmp_path / "weights.pt")
    found = read_state(tmp_path / "weights.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(values, state[key]) for key, values in found.items())


@pytest.mark.parametrize(
    "both",
    [
        lambda plain, averaged: {"state_dict": plain, "state_dict_ema": averaged},
        lambda plain, averaged: {"state_dict": prefixed(plain, "model.") | prefixed(averaged, "ema.")},
    ],
)
def test_averaged_weights_are_preferred_and_said(both: Any, state: State, tmp_path: Path) -> None:
    torch.save(both(shifted(state), state), tmp_path / "weights.pt")
    with pytest.warns(UserWarning, match="averaged weights"):
        found = read_state(tmp_path / "weights.pt")
    assert torch.equal(found["visual.proj"], state["visual.proj"])


def test_two_models_in_one_file_are_refused(state: State, tmp_path: Path) -> None:
    both = prefixed(state, "teacher.") | prefixed(state, "student.")
    torch.save(both, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"several models in it \(teacher\., student\.\)"):
        read_state(tmp_path / "weights.pt")


BROKEN: dict[str, tuple[Any, str]] = {
    "missing": (lambda state: {k: v for k, v in state.items() if k != "visual.proj"}, "missing visual.proj"),
    "left over": (
        lambda state: state | {"head.weight": torch.zeros(3, 8)},
        "unexpected head.weight",
    ),
    "shape": (
        lambda state: state | {"visual.proj": torch.zeros(16, 9)},
        r"visual\.proj is \(16, 9\), not \(16, 8\)",
    ),
    "NaN": (
        lambda state: state | {"visual.proj": torch.full((16, 8), torch.nan)},
        "'visual.proj' has NaN or infinite values",
    ),
    "overflowed": (
        lambda state: state | {"visual.proj": torch.full((16, 8), 1e5).half()},
        "'visual.proj' has NaN or infinite values, as float16 makes",
    ),
    "of transformers": (
        lambda state: {"text_model.embeddings.position_embedding.weight": torch.zeros(2, 2)},
        "saved by transformers",
    ),
    "LoRA": (lambda state: state | {"visual.a.lora_A.weight": torch.zeros(2, 2)}, "holds LoRA weights"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_what_does_not_fit_is_named_in_one_line(
    what: str, name: str, state: State, tiny_config: Path, tmp_path: Path
) -> None:
    change, said = BROKEN[what]
    changed = {key: values.clone() for key, values in change(state).items()}
    (save_file if name.endswith("safetensors") else torch.save)(changed, tmp_path / name)
    with pytest.raises(UserError, match=said) as refusal:
        load_backbone(str(tiny_config), str(tmp_path / name))
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


def test_half_precision_weights_are_loaded_as_float32(
    state: State, tiny: Backbone, tiny_config: Path, tmp_path: Path
) -> None:
    save_file(
        {key: values.half().contiguous() for key, values in state.items()}, tmp_path / "half.safetensors"
    )
    half = load_backbone(str(tiny_config), str(tmp_path / "half.safetensors"))
    assert {values.dtype for values in half.model.state_dict().values()} == {torch.float32}
    pixels = torch.randn(4, 3, 16, 16)
    features = half.encode_pixels(pixels)
    assert features.dtype == torch.float32 and bool(features.isfinite().all())
    torch.testing.assert_close(features, tiny.encode_pixels(pixels), rtol=0.01, atol=0.01)


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt: holds a list"):
        read_state(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(UserError, match=r"none\.pt: no tensors in it"):
        read_state(tmp_path / "none.pt")


def test_weights_of_another_architecture_are_refused_by_its_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        other = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
        wanted = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    state = {key: torch.zeros(()).expand(values.shape) for key, values in other.state_dict().items()}
    assert like(state)[:2] == ["ViT-B-16", "ViT-B-16-quickgelu"]
    torch.save(state, tmp_path / "other.pt")  # an expanded tensor is stored as the one number it is
    message = (
        r"do not fit ViT-B-32 \(visual\.[a-z0-9_.]+ is .*they are of --backbone ViT-B-16 or ViT-B-16-quick"
    )
    with pytest.raises(UserError, match=message):
        load_into(wanted, tmp_path / "other.pt", "ViT-B-32")


def test_known_shapes_tell_the_architecture(tiny: Backbone) -> None:
    assert "tiny_clip" in like(tiny.model.state_dict())
    assert like({"conv.weight": torch.zeros(3, 3)}) == []
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14-336"))
    assert like(model.state_dict())[0] == "ViT-L-14-336"


def test_a_folder_of_weights_and_config_is_what_its_files_are(
    tiny: Backbone, tiny_weights: Path, model_folder: Path
) -> None:
    config = json.loads((model_folder / "open_clip_config.json").read_text())
    assert config["model_cfg"]["embed_dim"] == 8
    backbone = load_backbone(str(model_folder))
    pixels = torch.randn(2, 3, 16, 16)
    assert torch.equal(backbone.encode_pixels(pixels), tiny.encode_pixels(pixels))
