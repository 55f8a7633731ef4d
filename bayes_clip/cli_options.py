"""The options that commands share, and how comma-separated ones are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.errors import UserError

DEFAULT_ENGINES = "zero_shot,map,ekf,laplace,vi"

ADAPTER, SUPPORT, ENCODER, RUNNING = "The adapter", "The support set", "The encoder", "Running"

TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="A built-in task, a folder of class folders, or a feature task.")
]
TaskNames = Annotated[
    list[str], typer.Argument(metavar="TASK", help="Built-in tasks, folders of class folders, feature tasks.")
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
    str,
    typer.Option("--covariance", help="full, class_block or diagonal.", rich_help_panel=ADAPTER),
]
Rule = Annotated[
    str | None,
    typer.Option("--rule", help="How ekf updates; its own default if absent.", rich_help_panel=ADAPTER),
]
PriorVariance = Annotated[
    str,
    typer.Option(
        "--prior-variance", help="auto: chosen from the support set alone; or a number.", rich_help_panel=ADAPTER
    ),
]
Order = Annotated[
    str,
    typer.Option("--order", help="balanced, given or random order of the labels.", rich_help_panel=ADAPTER),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Labels an update; default: one per class.", rich_help_panel=ADAPTER),
]
Passes = Annotated[
    int,
    typer.Option("--passes", min=1, help="Passes over the support set, none counted twice.", rich_help_panel=ADAPTER),
]

ShotsList = Annotated[
    str | None,
    typer.Option(
        "--shots", metavar="K,..", help="Labels per class.", show_default="all there are", rich_help_panel=SUPPORT
    ),
]
SeedsList = Annotated[
    str,
    typer.Option("--seeds", "--seed", metavar="S,..", help="Draws of those labels.", rich_help_panel=SUPPORT),
]
Outside = Annotated[
    str | None,
    typer.Option(
        "--ood", metavar="INPUT", help="Images or features that belong to no class.", rich_help_panel=SUPPORT
    ),
]

BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone", help="pocket_clip, or any open_clip model such as ViT-B-32.", rich_help_panel=ENCODER
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained", help="Its weights: an open_clip tag or a checkpoint file.", rich_help_panel=ENCODER
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        "--templates", help="A prompt with {} for the class, a text file of them, or ensemble.", rich_help_panel=ENCODER
    ),
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out images that cannot be read.", rich_help_panel=ENCODER)
]
AllowUnknownClasses = Annotated[
    bool,
    typer.Option(
        "--allow-unknown-classes", help="Let pocket_clip serve classes it never saw.", rich_help_panel=ENCODER
    ),
]

Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, ...", rich_help_panel=RUNNING)]
Dtype = Annotated[str, typer.Option("--dtype", help="float32 or float64.", rich_help_panel=RUNNING)]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=RUNNING)
]


def names(text: str, option: str) -> list[str]:
    """Split ``"map, ekf"`` into its names, in order and without repetition.

    Raises:
        UserError: there is no name at all.
    """
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UserError(f"{option} is empty; give one name or several separated by commas")
    return found


def one(text: str, option: str) -> str:
    """The only name in `text`; several are refused, because a posterior has one model and one engine."""
    found = names(text, option)
    if len(found) > 1:
        raise UserError(f"{option} {text}: one name here; to try several use: bayes-clip compare")
    return found[0]


def whole_numbers(text: str, option: str, least: int) -> list[int]:
    """Split ``"1,4,16"`` into whole numbers of at least `least`."""
    found = []
    for part in names(text, option):
        if not part.isascii() or not part.lstrip("+-").isdigit():
            raise UserError(f"{option} {text}: '{part}' is no whole number; write for example {option} {least},4")
        if int(part) < least:
            raise UserError(f"{option} {text}: {part} is too small; the least is {least}")
        found.append(int(part))
    return found


def shots_of(text: str | None) -> list[int | None]:
    """Shots asked for; ``[None]`` (the whole support set) when none are."""
    return [None] if text is None else list(whole_numbers(text, "--shots", 1))


def prior_variance_of(text: str) -> float | str:
    """``"auto"`` or a positive, finite number."""
    if text == "auto":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise UserError(f"--prior-variance {text}: give auto, or a positive number such as 0.01")
    return value
