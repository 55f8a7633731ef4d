"""The encoder options through the command line: the listing, a model folder, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from command_line import Cli, commands
from PIL import Image
from safetensors.torch import save_file

from bayes_clip.backbone.templates import SET_NAMES

CONFIG = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return commands(tmp_path, capsys, monkeypatch)


def model_folder(folder: Path, **preprocessing: object) -> Path:
    torch.manual_seed(0)
    folder.mkdir()
    state = open_clip.CLIP(**CONFIG).state_dict()
    save_file({key: values.contiguous() for key, values in state.items()}, folder / "model.safetensors")
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def photos(folder: Path) -> Path:
    for name, shade in (("red", 200), ("blue", 40)):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 20), (shade, 10 * number, 90)).save(folder / name / f"{number}.png")
    return folder


def test_backbones_are_listed_and_filtered(cli: Cli) -> None:
    listed = cli("backbones", "ViT-L-14-336").output
    assert "openai" in listed and "768" in listed and "336" in listed and "428" in listed
    outcome = cli("backbones", "xyzzy")
    assert (outcome.status, outcome.output, outcome.errors.count("\n")) == (2, "", 1)


def test_sets_of_prompts_are_listed(cli: Cli) -> None:
    listed = cli("backbones", "--templates").output.splitlines()
    assert [line.split()[0] for line in listed] == list(SET_NAMES)
    assert any("{} texture." in line for line in listed)


def test_a_folder_encodes_and_another_preprocessing_is_another_backbone(cli: Cli) -> None:
    photos(Path("photos"))
    model_folder(Path("first"))
    model_folder(Path("second"), mean=[0.5, 0.5, 0.5])
    fit = (
        "fit",
        "photos",
        "--backbone",
        "first",
        "--engine",
        "map",
        "--prior-variance",
        0.1,
        "--templates",
        "dtd",
    )
    assert cli(*fit, "--out", "posterior").status == 0
    for name in ("first", "second"):
        made = cli("features", "photos", "--backbone", name, "--precision", "float32", "--out", f"{name}.npz")
        assert made.status == 0, made.errors
    with np.load("first.npz") as first, np.load("second.npz") as second:
        assert first["backbone"] != second["backbone"] and first["precision"] == "float32"
    assert cli("predict", "posterior", "first.npz").status == 0
    refused = cli("predict", "posterior", "second.npz")
    assert (refused.status, refused.output, refused.errors.count("\n")) == (2, "", 1)
    assert "backbone" in refused.errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--backbone", "./nowhere"), "no such folder"),
        (("--backbone", "photos/"), "has no open_clip_config.json"),
        (("--backbone", "hf-hub:one"), "hf-hub:ORGANISATION/MODEL"),
        (("--backbone", "ViT-B-32", "--pretrained", "photos"), "a folder without adapter_config.json"),
        (("--backbone", "ViT-B-32", "--pretrained", "openai+photos"), "behind the + belongs a LoRA folder"),
        (("--backbone", "pocket_clip", "--pretrained", "openai"), "pocket_clip has its own weights"),
        (("--backbone", "pocket_clip", "--precision", "float8"), "give auto or float32"),
        (("--precision", "float32"), "add --backbone"),
    ],
)
def test_what_cannot_be_loaded_is_refused(cli: Cli, options: tuple[str, ...], said: str) -> None:
    photos(Path("photos"))
    outcome = cli("features", "photos", *options, "--out", "features.npz")
    assert (outcome.status, outcome.output, outcome.errors.count("\n")) == (2, "", 1)
    assert said in outcome.errors and not Path("features.npz").exists()
