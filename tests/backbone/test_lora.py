from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from bayes_clip.backbone.lora import merge_adapter
from bayes_clip.errors import UserError

RANK, ALPHA = 3, 5
SIZES: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 2, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 2},
}
BLOCK = "visual.transformer.resblocks.1"
LAYERS = {  # PEFT's name of a layer -> (out, in)
    f"{BLOCK}.attn": (48, 16),
    f"{BLOCK}.attn.base_layer.out_proj": (16, 16),
    f"{BLOCK}.mlp.c_fc": (64, 16),
    "transformer.resblocks.0.attn": (48, 16),
    "transformer.resblocks.0.mlp.c_proj": (16, 64),
}


def a_model() -> Any:
    torch.manual_seed(0)
    return open_clip.CLIP(**SIZES).double().eval().requires_grad_(False)


def adapter(folder: Path, layers: dict[str, tuple[int, int]] = LAYERS, **changes: Any) -> dict[str, Tensor]:
    """A folder as PEFT writes it; returns the tensors in it."""
    torch.manual_seed(1)
    tensors = {}
    for layer, (out, inside) in layers.items():
        shapes = {"A": (RANK, inside), "B": (out, RANK)}
        for side, shape in shapes.items():
            tensors[f"base_model.model.{layer}.lora_{side}.weight"] = torch.randn(shape, dtype=torch.float64)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "peft_version": "0.18.0"}
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return tensors


class Attention(nn.Module):
    """Self-attention whose changed maps are applied beside the frozen ones, never added to them."""

    def __init__(self, frozen: nn.MultiheadAttention, joint: Callable, output: Callable) -> None:
        super().__init__()
        self.frozen, self.joint, self.output = frozen, joint, output

    def forward(self, query: Tensor, *_: Any, attn_mask: Tensor | None = None, **__: Any) -> tuple[Tensor]:
        frozen = self.frozen
        states = query if frozen.batch_first else query.transpose(0, 1)
        maps = linear(states, frozen.in_proj_weight, frozen.in_proj_bias) + self.joint(states)
        heads = maps.unflatten(-1, (3, frozen.num_heads, -1)).movedim(-3, 0).transpose(-3, -2)
        mixed = scaled_dot_product_attention(*heads, attn_mask=attn_mask).transpose(-3, -2).flatten(-2)
        states = linear(mixed, frozen.out_proj.weight, frozen.out_proj.bias) + self.output(mixed)
        return (states if frozen.batch_first else states.transpose(0, 1),)


def unmerged(model: Any, tensors: dict[str, Tensor], scale: float) -> Any:
    """The model with every change computed as s B (A x) beside its layer."""

    def change(layer: str, times: int = 1) -> Callable[[Tensor], Tensor]:
        key = f"base_model.model.{layer}.lora_"
        if f"{key}A.weight" not in tensors:
            return lambda states: torch.zeros((), dtype=states.dtype)
        down, up = tensors[f"{key}A.weight"], tensors[f"{key}B.weight"]
        return lambda states: times * scale * ((states @ down.mT) @ up.mT)

    for tower in (model.visual.transformer, model.transformer):
        place = "transformer" if tower is model.transformer else "visual.transformer"
        for number, block in enumerate(tower.resblocks):
            name = f"{place}.resblocks.{number}"
            output = change(f"{name}.attn.base_layer.out_proj", times=2)  # as PEFT up to 0.21 trains it
            block.attn = Attention(block.attn, change(f"{name}.attn"), output)
            for part in ("c_fc", "c_proj"):
                beside = change(f"{name}.mlp.{part}")
                getattr(block.mlp, part).register_forward_hook(
                    lambda _, given, made, beside=beside: made + beside(given[0])
                )
    return model


@pytest.mark.parametrize(("rslora", "scale"), [(False, ALPHA / RANK), (True, ALPHA / RANK**0.5)])
def test_merged_weights_are_the_unmerged_forward(rslora: bool, scale: float, tmp_path: Path) -> None:
    tensors = adapter(tmp_path, use_rslora=rslora)
    merged, apart = a_model(), unmerged(a_model(), tensors, scale)
    pictures, texts = torch.randn(3, 3, 16, 16, dtype=torch.float64), torch.randint(1, 99, (4, 16))
    before = merged.encode_image(pictures), merged.encode_text(texts)
    merge_adapter(merged, tmp_path, "tiny")
    for old, new, expected in zip(
        before,
        (merged.encode_image(pictures), merged.encode_text(texts)),
        (apart.encode_image(pictures), apart.encode_text(texts)),
        strict=True,
    ):
        torch.testing.assert_close(new, expected, rtol=1e-9, atol=1e-9)
        assert (new - old).abs().max() > 0.01


def test_nothing_else_is_changed(tmp_path: Path) -> None:
    adapter(tmp_path)
    before, after = a_model().state_dict(), a_model()
    merge_adapter(after, tmp_path, "tiny")
    changed = {name for name, values in after.state_dict().items() if not torch.equal(values, before[name])}
    assert changed == {
        f"{BLOCK}.attn.in_proj_weight",
        f"{BLOCK}.attn.out_proj.weight",
        f"{BLOCK}.mlp.c_fc.weight",
        "transformer.resblocks.0.attn.in_proj_weight",
        "transformer.resblocks.0.mlp.c_proj.weight",
    }


def test_ranks_and_alphas_may_differ_by_layer(tmp_path: Path) -> None:
    layer = f"{BLOCK}.mlp.c_fc"
    tensors = adapter(tmp_path, {layer: (64, 16)}, r=99, alpha_pattern={"resblocks.1.mlp.c_fc": 12})
    model = a_model()
    before = model.get_submodule(layer).weight.clone()
    merge_adapter(model, tmp_path, "tiny")
    down, up = (tensors[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
    expected = before + 12 / RANK * up @ down  # the rank is that of the tensors
    torch.testing.assert_close(model.get_submodule(layer).weight, expected, rtol=1e-9, atol=1e-9)


def test_a_later_peft_counts_outputs_once_and_is_warned_of(tmp_path: Path) -> None:
    layer = f"{BLOCK}.attn.base_layer.out_proj"
    tensors = adapter(tmp_path, {layer: (16, 16)}, peft_version="0.22.1")
    model = a_model()
    weight = model.get_submodule(f"{BLOCK}.attn.out_proj").weight
    before = weight.clone()
    with pytest.warns(UserWarning, match=r"counted once.*compare features"):
        merge_adapter(model, tmp_path, "tiny")
    down, up = (tensors[f"base_model.model.{layer}.lora_{side}.weight"] for side in "AB")
    torch.testing.assert_close(weight, before + ALPHA / RANK * up @ down, rtol=1e-9, atol=1e-9)


CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "another method": ({"peft_type": "IA3"}, "peft_type is IA3"),
    "DoRA": ({"use_dora": True}, "use_dora is True"),
    "changed base": ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    "biases": ({"bias": "all"}, "bias is 'all'"),
    "whole modules": ({"modules_to_save": ["proj"]}, r"modules_to_save is \['proj'\]"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha is None"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_other_methods_are_refused_by_name(what: str, tmp_path: Path) -> None:
    changes, said = CONFIGS[what]
    adapter(tmp_path, **changes)
    with pytest.raises(UserError, match=rf"adapter_config\.json: {said}"):
        merge_adapter(a_model(), tmp_path, "tiny")


LAYERS_REFUSED: dict[str, tuple[str, tuple[int, int], str]] = {
    "unknown": (
        "vision_model.encoder.layers.0.self_attn.q_proj",
        (16, 16),
        "tiny has no layer 'vision_model",
    ),
    "convolution": ("visual.conv1", (16, 192), r"'visual\.conv1' is a Conv2d; only Linear"),
    "embedding": ("token_embedding", (100, 16), "'token_embedding' is a Embedding"),
    "parameter": ("visual.proj", (8, 16), r"tiny has no layer 'visual\.proj'"),
    "another width": (
        f"{BLOCK}.mlp.c_fc",
        (3072, 768),
        r"is \(3072, 768\) and the weight of tiny \(64, 16\)",
    ),
}


@pytest.mark.parametrize("what", LAYERS_REFUSED)
def test_other_layers_are_refused_by_name_and_nothing_is_changed(what: str, tmp_path: Path) -> None:
    layer, shape, said = LAYERS_REFUSED[what]
    adapter(tmp_path, LAYERS | {layer: shape})
    model, before = a_model(), a_model().state_dict()
    with pytest.raises(UserError, match=rf"adapter_model\.safetensors: .*{said}"):
        merge_adapter(model, tmp_path, "tiny")
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_other_tensors_are_refused_by_name(tmp_path: Path) -> None:
    adapter(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    whole = load_file(file)
    for key, value, said in (
        ("base_model.model.visual.conv1.lora_A.weight", torch.zeros(3, 3, 8, 8), "conv1.lora_A.weight"),
        ("base_model.model.token_embedding.lora_embedding_A", torch.zeros(3, 9), "lora_embedding_A"),
        (f"base_model.model.{BLOCK}.mlp.c_proj.lora_A.weight", torch.zeros(3, 64), "it needs lora_A"),
        (f"base_model.model.{BLOCK}.mlp.c_fc.lora_B.weight", torch.full((64, 3), torch.nan), "NaN"),
    ):
        save_file(whole | {key: value}, file)
        with pytest.raises(UserError, match=said):
            merge_adapter(a_model(), tmp_path, "tiny")
    file.unlink()
    with pytest.raises(UserError, match=r"has adapter_config\.json and no adapter_model\.safetensors"):
        merge_adapter(a_model(), tmp_path, "tiny")
