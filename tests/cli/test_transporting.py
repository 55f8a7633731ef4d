"""`bayes-clip transport` at the command line, between two small open_clip models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from command_line import Cli, commands
from PIL import Image
from safetensors.torch import save_file

CLASSES = ("red", "green", "blue")


def model(folder: Path, name: str, embed_dim: int, text_width: int) -> None:
    """An open_clip config and random weights that fit it."""
    vision = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": text_width, "heads": 2, "layers": 1}
    config: dict[str, Any] = {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{name}.json").write_text(json.dumps(config))
    torch.manual_seed(embed_dim)
    state = open_clip.CLIP(**config).state_dict()
    kept = {key: value.contiguous() for key, value in state.items() if key != "attn_mask"}
    save_file(kept, folder / f"{name}.safetensors")


def pictures(folder: Path, each: int, seed: int) -> None:
    """Noisy pictures of one colour, a folder a class."""
    generator = np.random.default_rng(seed)
    for channel, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = generator.integers(0, 120, (16, 16, 3))
            pixels[..., channel] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three encoders and three folders of pictures."""
    folder = tmp_path_factory.mktemp("transport")
    model(folder, "transport_v1", 8, 16)
    model(folder, "transport_v2", 12, 16)
    model(folder, "transport_v3", 12, 20)
    for name, each in (("labelled", 6), ("more", 3), ("photos", 8)):
        pictures(folder / name, each, seed=each)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line in the folder of encoders and pictures: status, output, errors."""
    return commands(place, capsys, monkeypatch, columns=200)


def encoder(version: int, option: str = "--backbone", weights: str = "--pretrained") -> tuple[str, ...]:
    return option, f"transport_v{version}.json", weights, f"transport_v{version}.safetensors"


FROM_FIRST = encoder(1, "--from", "--from-pretrained")
PHOTOS = ("--unlabelled", "photos", "--out", "newer")


@pytest.fixture(scope="module")
def fitted(place: Path) -> Path:
    """Posteriors of the first encoder: a linear head, a point, and context words."""
    from bayes_clip import FitSettings, fit, load_backbone, load_task

    backbone = load_backbone(str(place / "transport_v1.json"), str(place / "transport_v1.safetensors"))
    task = load_task(place / "labelled", backbone)
    for name, settings in (
        ("head", FitSettings(prior_variance=0.01)),
        ("point", FitSettings(prior_variance=0.01, engine="map")),
        ("words", FitSettings(prior_variance=0.01, model="coop", covariance="diagonal")),
    ):
        fit(task, settings).posterior.save(place / name)
    return place


def test_a_posterior_goes_over_and_learns_on(run: Cli, fitted: Path) -> None:
    kind = "procrustes"
    status, output, errors = run(
        "transport", "head", *encoder(2, "--to"), *FROM_FIRST, *PHOTOS[:3], kind, "--map", kind
    )
    assert status == 0, errors
    assert "12 features" in output and f"FeatureMap({kind} 8 -> 12, 24 pictures" in output
    assert f"in {kind}" in output and "note: in/out verdicts and abstention need labels" in output
    described = json.loads(Path(kind, "posterior.json").read_text())
    assert described["source"]["settings"]["engine"] == "ekf"
    assert (
        described["source"]["backbone"]
        != json.loads(Path("head/posterior.json").read_text())["source"]["backbone"]
    )
    for command in ("evaluate", "update"):
        status, output, errors = run(command, kind, "more", *encoder(2))
        assert status == 0, errors
    assert "9 labels" in output
    status, _, errors = run("update", kind, "more", *encoder(1))
    assert status == 2 and "the posterior was fitted with" in errors
    status, output, errors = run("predict", kind, "photos/red/0.png", *encoder(2))
    assert status == 0 and "red" in output, errors


def test_context_words_go_over_as_they_are(run: Cli, fitted: Path) -> None:
    status, output, errors = run("transport", "words", *encoder(2, "--to"), *PHOTOS[:3], "words_v2")
    assert status == 0, errors
    assert "weights as they are, process noise" in output
    status, output, errors = run("update", "words_v2", "more", *encoder(2))
    assert status == 0 and "9 labels" in output, errors


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "no posterior": (("nowhere", *encoder(2, "--to"), *PHOTOS), "no posterior there"),
    "no weights": (("head", "--to", "transport_v2.json", *FROM_FIRST, *PHOTOS), "no weights named"),
    "another origin": (("head", *encoder(2, "--to"), *PHOTOS), "--from pocket_clip: its fingerprint is"),
    "weights of nothing": (
        ("head", *encoder(2, "--to"), *PHOTOS, *FROM_FIRST[2:]),
        "of which model? add --from",
    ),
    "no pictures": (
        ("head", *encoder(2, "--to"), *FROM_FIRST, "--unlabelled", "nothing", "--out", "newer"),
        "nothing",
    ),
    "features": (
        ("head", *encoder(2, "--to"), *FROM_FIRST, "--unlabelled", "rows.npz", "--out", "newer"),
        "features of one encoder; give pictures",
    ),
    "one picture": (
        ("head", *encoder(2, "--to"), *FROM_FIRST, "--unlabelled", "photos/red/0.png", "--out", "newer"),
        "a map takes at least 10",
    ),
    "no such map": (
        ("head", *encoder(2, "--to"), *FROM_FIRST, *PHOTOS, "--map", "rigid"),
        "--map rigid: no such map",
    ),
    "a point": (("point", *encoder(2, "--to"), *FROM_FIRST, *PHOTOS), "no covariance to carry over"),
    "wider tokens": (("words", *encoder(3, "--to"), *PHOTOS), "their text tokens differ in width"),
    "a place that is a file": (
        ("head", *encoder(2, "--to"), "--unlabelled", "photos", "--out", "rows.npz"),
        "is a file",
    ),
}


def test_what_cannot_be_is_one_line_and_writes_nothing(run: Cli, fitted: Path) -> None:
    np.savez("rows.npz", features=np.ones((20, 8)))
    for arguments, said in REFUSED.values():
        status, output, errors = run("transport", *arguments)
        assert (status, output, errors.count("\n")) == (2, "", 1), (arguments, errors)
        assert said in errors, (arguments, errors)
        assert not Path("newer").exists()


def test_help_teaches_by_example(run: Cli) -> None:
    status, output, _ = run("transport", "--help")
    assert status == 0 and "bayes-clip transport " in output.split("Examples")[1]
