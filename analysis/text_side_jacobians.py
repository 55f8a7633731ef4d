"""Seconds that the logits' Jacobian of `coop` takes through the text encoder, against row by row.

    python analysis/text_side_jacobians.py [--batches 1,4,16,64,256] [--classes 10]

Two text encoders: pocket_clip's, and one of ViT-B-32's size with random weights, which take as long as any.
"Once per class" is what the engines do (bayes_clip/inference/text_side.py); "row by row" differentiates the
logits of each image through the encoder. Both are the same numbers to 1e-9 in float64 (the tests hold them
to that). Images are random unit features: the time does not depend on them. A way whose last batch took more
than `MOST_SECONDS` is not tried on larger ones.

Writes analysis/results/text_side_jacobians.csv, .md and .png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import open_clip
import pandas as pd
import torch
from matplotlib.figure import Figure
from study_tools import hardware, markdown, write_study
from torch import Tensor

from bayes_clip.backbone.encoder import Backbone, load_backbone
from bayes_clip.inference.text_side import two_towers
from bayes_clip.model import Context, TwoTowerModel, find_model
from bayes_clip.progress import track

MOST_SECONDS = 15.0
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Way = Callable[[Tensor, Tensor], Tensor]  # flat weights (P,), unit features (b, D) -> (b, C, P)


def random_backbone(name: str = "ViT-B-32") -> Backbone:
    """A backbone with random weights, whose text encoder is as large as that of `name`."""
    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    assert config is not None
    vision = {"image_size": 32, "patch_size": 32, "width": 64, "layers": 1, "head_width": 64}  # not used
    model = open_clip.CLIP(config["embed_dim"], vision, config["text_cfg"]).eval().requires_grad_(False)
    tokenize = open_clip.get_tokenizer(name)
    return Backbone(
        name=f"{name} (random)",
        pretrained=None,
        fingerprint="random",
        logit_scale=100.0,
        feature_dim=config["embed_dim"],
        default_templates=("a photo of a {}.",),
        vocabulary=None,
        device="cpu",
        model=model,
        preprocess=lambda picture: picture,
        preprocessing={"size": 32},
        tokenize=tokenize,
    )


def ways(backbone: Backbone, classes: int) -> tuple[Tensor, dict[str, Way]]:
    """Flat prior mean of `coop`, and the two ways to its Jacobian."""
    context = Context(
        torch.zeros(classes, backbone.feature_dim),
        NAMES[:classes],
        backbone.logit_scale,
        encoder=backbone,
        templates=("a photo of a {}.",),
    )
    model = find_model("coop")(context, 1.0)
    assert isinstance(model, TwoTowerModel)
    mean = model.prior()["contexts"].mean

    def values(flat: Tensor) -> dict[str, Tensor]:
        return {"contexts": flat.reshape(*flat.shape[:-1], *mean.shape)}

    towers = two_towers(model, values)
    assert towers is not None
    one = torch.func.jacrev(lambda flat, row: model.logits(values(flat), row[None])[0])
    at_once = max(1, 2**28 // (4 * classes**2 * model.numbers_per_class))  # rows: 256 MB, as the engines
    rows = torch.func.vmap(one, in_dims=(None, 0), chunk_size=at_once)
    return mean.flatten(), {"once per class": towers.jacobian, "row by row": rows}


def study(backbones: list[Backbone], batches: list[int], classes: int) -> pd.DataFrame:
    """One row for every encoder, way and batch: the best of two runs."""
    rows = []
    for backbone in track(backbones, "text encoders"):
        mean, both = ways(backbone, classes)
        for way, jacobian in both.items():
            for batch in batches:
                inputs = torch.randn(batch, backbone.feature_dim, generator=torch.Generator().manual_seed(1))
                unit = torch.nn.functional.normalize(inputs, dim=-1)
                seconds = min(timed(jacobian, mean, unit) for _ in range(2))
                rows.append(
                    {
                        "text_encoder": backbone.name,
                        "weights": len(mean),
                        "classes": classes,
                        "batch": batch,
                        "way": way,
                        "seconds": seconds,
                    }
                )
                if seconds > MOST_SECONDS:
                    break
    return pd.DataFrame(rows)


def timed(jacobian: Way, mean: Tensor, inputs: Tensor) -> float:
    """Seconds of one Jacobian."""
    start = time.perf_counter()
    jacobian(mean, inputs)
    return time.perf_counter() - start


def figure(table: pd.DataFrame) -> Figure:
    """Seconds against rows of a batch, one panel for each text encoder."""
    encoders = list(table["text_encoder"].unique())
    drawn = Figure(figsize=(4.2 * len(encoders), 3.4), layout="constrained")
    for axes, encoder in zip(drawn.subplots(1, len(encoders), squeeze=False)[0], encoders, strict=True):
        for way, part in table[table["text_encoder"] == encoder].groupby("way", sort=False):
            axes.loglog(part["batch"], part["seconds"], marker="o", label=way)
        axes.set(title=encoder, xlabel="images in the batch", ylabel="seconds of one Jacobian")
        axes.legend()
    return drawn


def summary(table: pd.DataFrame) -> str:
    """Markdown: seconds of both ways, and their ratio."""
    lines = []
    for keys, part in table.groupby(["text_encoder", "weights", "classes", "batch"], sort=False):
        seconds = dict(zip(part["way"], part["seconds"], strict=True))
        own, naive = seconds.get("once per class"), seconds.get("row by row")
        ratio = "-" if own is None or naive is None else f"{naive / own:.3g}"
        lines.append([*keys, *("-" if one is None else f"{one:.3g} s" for one in (own, naive)), ratio])
    header = ["text encoder", "weights", "classes", "images", "once per class", "row by row", "ratio"]
    return markdown(header, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batches", default="1,4,16,64,256")
    parser.add_argument("--classes", type=int, default=len(NAMES))
    asked = parser.parse_args()
    batches = [int(batch) for batch in asked.batches.split(",")]
    table = study([load_backbone(), random_backbone()], batches, asked.classes)
    text = f"Seconds of one Jacobian of coop's logits, float32; {hardware()}.\n\n{summary(table)}"
    write_study("text_side_jacobians", {"": table}, text, figure(table))
    print(text)


if __name__ == "__main__":
    main()
