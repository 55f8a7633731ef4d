"""The options that commands share: names, help and the panel each is shown in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.data import store_place
from bayes_clip.errors import UserError
from bayes_clip.inference import DEFAULT_ENGINES

ALL_DEFAULT_ENGINES = ",".join(DEFAULT_ENGINES)


def _keep_in(folder: Path | None) -> None:
    if folder is None:
        return
    if store_place.store_folder() is None and store_place.is_chosen():
        raise UserError("--store and --no-store: ask for one of them")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--store {folder}: a file, not a folder; give a folder for features")
    store_place.use_store(folder)


def _keep_nowhere(asked: bool) -> None:
    if not asked:
        return
    if store_place.is_chosen():
        raise UserError("--store and --no-store: ask for one of them")
    store_place.use_store(None)


ADAPTER, SUPPORT, ENCODER, RUNNING = "The adapter", "The support set", "The encoder", "Running"

TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="A built-in task, class folders, a data set with CoOp's split, a CSV of paths and labels, "
        "torchvision:NAME[:ROOT], a feature task.",
    ),
]
TaskNames = Annotated[
    list[str],
    typer.Argument(
        metavar="TASK",
        help="Built-in tasks, class folders, data sets with CoOp's split, CSVs of paths and labels, "
        "torchvision:NAME[:ROOT], feature tasks.",
    ),
]
InputName = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="An image, a folder of images, a .txt of paths, tar shards, a Hugging Face data set on disk, or "
        "a feature file.",
    ),
]
PosteriorFolder = Annotated[
    Path, typer.Argument(metavar="POSTERIOR", help="A folder written by [bold]bayes-clip fit[/bold].")
]

Models = Annotated[
    str,
    typer.Option(
        "--models", "--model", help="Model programs, by name or path; or all.", rich_help_panel=ADAPTER
    ),
]
Engines = Annotated[
    str,
    typer.Option("--engines", "--engine", help="See bayes-clip engines.", rich_help_panel=ADAPTER),
]
Covariance = Annotated[
    str | None,
    typer.Option(
        "--covariance",
        help="full (all weights jointly; small problems), class_block (one per class), kronecker (classes x "
        "features), low_rank (diagonal plus low rank in precision), diagonal (marginal variances), "
        "diagonal_variational (inverse of the precision's diagonal); for vi diagonal or low_rank.",
        show_default="the engine's own",
        rich_help_panel=ADAPTER,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--rule",
        help="How ekf updates: expected (averages over the batch's posterior), iterated (at its mode: "
        "one batch is Laplace), moment_matched (one step, averaged over the prediction), plain (the textbook "
        "filter), kalman_clip (as published: observes cosines; --covariance diagonal), natural_gradient (the "
        "cheapest step; --covariance diagonal_variational).",
        show_default="expected",
        rich_help_panel=ADAPTER,
    ),
]
Predictive = Annotated[
    str,
    typer.Option(
        "--predictive",
        help="From weights to probabilities: plug_in, closed_form, monte_carlo or auto.",
        rich_help_panel=ADAPTER,
    ),
]
ClassPrior = Annotated[
    str,
    typer.Option(
        "--class-prior",
        help="How often pictures to come are of each class: support (as often as among the labels) or even "
        "(all alike: where labels are unequal in number, rare classes keep their chance).",
        rich_help_panel=ADAPTER,
    ),
]
PriorVariance = Annotated[
    str,
    typer.Option(
        "--prior-variance",
        help="auto: chosen from the support set alone; or a number.",
        rich_help_panel=ADAPTER,
    ),
]
Order = Annotated[
    str,
    typer.Option("--order", help="balanced, given or random order of the labels.", rich_help_panel=ADAPTER),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Labels an update.",
        show_default="whole shots of every class, up to 32 labels; at least one shot, at most 128 labels",
        rich_help_panel=ADAPTER,
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        "--block-size",
        min=1,
        help="With --batch-size 1: labels a visit of the covariance. Changes speed and rounding only.",
        show_default="64 at most; 1 with --order given",
        rich_help_panel=ADAPTER,
    ),
]
Passes = Annotated[
    int,
    typer.Option(
        "--passes", min=1, help="Passes over the support set, none counted twice.", rich_help_panel=ADAPTER
    ),
]

Decay = Annotated[
    str,
    typer.Option(
        "--decay",
        help="Pull towards the prior mean before each batch; 1: none. By site: class_weights=0.99,...",
        rich_help_panel=ADAPTER,
    ),
]
ProcessNoise = Annotated[
    str | None,
    typer.Option(
        "--process-noise",
        help="Added before each batch, as a multiple of the prior covariance; also by site. auto: chosen so "
        "that each batch is predicted best before it is learned (--order given for a stream).",
        show_default="1 - decay²",
        rich_help_panel=ADAPTER,
    ),
]

ShotsList = Annotated[
    str | None,
    typer.Option(
        "--shots",
        metavar="K,..",
        help="Labels per class.",
        show_default="all there are",
        rich_help_panel=SUPPORT,
    ),
]
SeedsList = Annotated[
    str,
    typer.Option("--seeds", "--seed", metavar="S,..", help="Draws of those labels.", rich_help_panel=SUPPORT),
]
Shots = Annotated[
    int | None,
    typer.Option(
        "--shots", min=1, help="Labels per class.", show_default="all there are", rich_help_panel=SUPPORT
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Draw of those labels.", rich_help_panel=SUPPORT)]
Outside = Annotated[
    str | None,
    typer.Option(
        "--ood", metavar="INPUT", help="Images or features that belong to no class.", rich_help_panel=SUPPORT
    ),
]

BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="pocket_clip, any open_clip model such as ViT-B-32 (see bayes-clip backbones), hf-hub:ORG/MODEL "
        "or a folder of one.",
        rich_help_panel=ENCODER,
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        help="Its weights: an open_clip tag or a checkpoint file; +FOLDER merges a LoRA adapter into them.",
        rich_help_panel=ENCODER,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Of the image encoder: auto (on a GPU float16 by autocast) or float32. Features are float32.",
        rich_help_panel=ENCODER,
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        "--templates",
        help="A prompt with {} for the class, a text file of them, or a set by name (bayes-clip backbones "
        "--templates lists them).",
        show_default="the data set's own, else the backbone's",
        rich_help_panel=ENCODER,
    ),
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out images that cannot be read.", rich_help_panel=ENCODER)
]
Store = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Where features of images are kept, so that each is encoded once.",
        show_default="BAYES_CLIP_CACHE, or the user's cache folder",
        callback=_keep_in,
        expose_value=False,  # results do not depend on it
        rich_help_panel=ENCODER,
    ),
]
NoStore = Annotated[
    bool,
    typer.Option(
        "--no-store",
        help="Neither keep features nor use those kept.",
        callback=_keep_nowhere,
        expose_value=False,
        rich_help_panel=ENCODER,
    ),
]
AllowUnknownClasses = Annotated[
    bool,
    typer.Option(
        "--allow-unknown-classes", help="Let pocket_clip serve classes it never saw.", rich_help_panel=ENCODER
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        help="Work in N processes of a local Ray cluster.",
        show_default="in this one",
        rich_help_panel=RUNNING,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="Work on a running Ray cluster: host:port, or auto for the one this machine belongs to.",
        rich_help_panel=RUNNING,
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...", rich_help_panel=RUNNING)]
Dtype = Annotated[str, typer.Option("--dtype", help="float32 or float64.", rich_help_panel=RUNNING)]
AbstainAt = Annotated[
    float | None,
    typer.Option(
        "--abstain-at",
        metavar="RISK",
        min=0.0,
        max=1.0,
        help="Answer only where at most this share will be wrong.",
    ),
]
FalseAlarms = Annotated[
    float,
    typer.Option(
        "--false-alarms",
        metavar="SHARE",
        help="Rows of known classes that may be called out, as a share.",
    ),
]
Coverage = Annotated[
    float | None,
    typer.Option(
        "--coverage",
        metavar="SHARE",
        help="Also name all classes that an input may belong to, so that this share of the sets is right.",
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=RUNNING)
]
