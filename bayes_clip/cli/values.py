"""From the text of options to values of the library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bayes_clip.errors import UserError

if TYPE_CHECKING:
    from bayes_clip.backbone.encoder import Backbone
    from bayes_clip.cluster import Cluster


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
            raise UserError(
                f"{option} {text}: '{part}' is no whole number; write for example {option} {least},4"
            )
        if int(part) < least:
            raise UserError(f"{option} {text}: {part} is too small; the least is {least}")
        found.append(int(part))
    return found


def whole_range(text: str, option: str, least: int) -> list[int]:
    """`whole_numbers`, where ``1-5`` stands for all from 1 to 5."""
    found = []
    for part in names(text, option):
        first, dash, last = part.partition("-")
        ends = whole_numbers(f"{first},{last}" if dash and first and last else part, option, least)
        found += list(range(ends[0], ends[-1] + 1))
    if not found:
        raise UserError(f"{option} {text}: ends before it begins; write for example {option} {least}-5")
    return list(dict.fromkeys(found))


def stem(task: str) -> str:
    """What a task is called in the name of a folder: its file's or folder's name, or that of torchvision."""
    return task.split(":")[1] if task.startswith("torchvision:") else Path(task).resolve().stem


def decay(text: str) -> float | dict[str, float]:
    """One number for all weights, or ``"class_weights=0.99,bias=1"``."""
    return _by_site(text, "--decay")


def process_noise(text: str | None) -> float | dict[str, float] | Literal["auto"] | None:
    """A number for all weights, one for each site by name, or ``auto``; None where nothing was asked for."""
    if text is None:
        return None
    return "auto" if text.strip().lower() == "auto" else _by_site(text, "--process-noise")


def _by_site(text: str, option: str) -> float | dict[str, float]:
    found = {}
    for part in names(text, option):
        site, _, value = part.rpartition("=")
        if site.strip() in found and site:
            raise UserError(f"{option} {text}: '{site.strip()}' stands twice; give it once")
        try:
            found[site.strip()] = float(value)
        except ValueError:
            raise UserError(
                f"{option} {text}: '{value}' is no number; write for example {option} 0.1 or "
                f"{option} class_weights=0.1"
            ) from None
    if "" not in found:
        return found
    if len(found) > 1:
        raise UserError(f"{option} {text}: give one number for all weights, or one for each site by name")
    return found[""]


def positive_numbers(text: str, option: str) -> list[float]:
    """Split ``"1,10,100"`` into positive, finite numbers."""
    found = []
    for part in names(text, option):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0.0 < value < float("inf"):
            raise UserError(
                f"{option} {text}: '{part}' is no positive number; write for example {option} 1,10"
            )
        found.append(value)
    return found


def arms(models: str, engines: str, shots: str | None, seeds: str) -> dict[str, Any]:
    """What a comparison runs over, by the names `compare` takes; no shots mean the whole support set."""
    return {
        "models": names(models, "--models"),
        "engines": names(engines, "--engines"),
        "shots": [None] if shots is None else whole_numbers(shots, "--shots", 1),
        "seeds": whole_numbers(seeds, "--seeds", 0),
    }


def cluster(workers: int | None, address: str | None) -> Cluster | None:
    """Where the work is done; None: in this process.

    Raises:
        UserError: Ray is asked for and not installed, or an address is empty.
    """
    if workers is None and address is None:
        return None
    from bayes_clip.cluster import Cluster, check_ray  # takes seconds

    check_ray()
    return Cluster(workers, address)


def prior_variance(text: str) -> float | None:
    """A positive, finite number; None for ``"auto"``, which has it chosen from the support set."""
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise UserError(f"--prior-variance {text}: give auto, or a positive number such as 0.01")
    return value


def encoder(
    backbone: str | None, pretrained: str | None, device: str, precision: str = "auto"
) -> Backbone | None:
    """The backbone asked for; None where none is, so that it is loaded only if a task needs it.

    Raises:
        UserError: weights or a precision without a model, a device that is not there, or what
            `load_backbone` refuses.
    """
    if backbone is None and pretrained is not None:
        raise UserError(
            f"--pretrained {pretrained}: of which model? add --backbone, such as --backbone ViT-B-32"
        )
    if backbone is None and precision != "auto":
        raise UserError(
            f"--precision {precision}: of which model? add --backbone, such as --backbone pocket_clip"
        )
    if backbone is None and device == "cpu":
        return None
    from bayes_clip.backbone.encoder import load_backbone  # takes seconds
    from bayes_clip.backbone.factory import check_device

    check_device(device)
    return None if backbone is None else load_backbone(backbone, pretrained, device, precision)
