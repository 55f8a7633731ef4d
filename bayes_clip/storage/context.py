"""What a model program knows of its task, as named tensors and JSON and back.

An encoder is not stored: its name, weights and fingerprint are, and it is loaded again by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bayes_clip.errors import UserError
from bayes_clip.model import Context, Projection, Support
from bayes_clip.storage.packing import taken, under

if TYPE_CHECKING:  # open_clip takes seconds to import; feature programs do without
    from bayes_clip.backbone.encoder import Backbone


def pack_context(context: Context) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a context, and what of it stands in the JSON."""
    tensors = {"text_features": context.text_features}
    if context.support is not None:
        tensors |= under("support", vars(context.support))
    if context.projection is not None:
        parts = {name: part for name, part in vars(context.projection).items() if part is not None}
        tensors |= under("projection", parts)
    encoder = context.encoder
    described = {
        "class_names": list(context.class_names),
        "logit_scale": context.logit_scale,
        "has_text": context.has_text,
        "width": context.width,
        "templates": list(context.templates),
        "encoder": None
        if encoder is None
        else {
            "name": encoder.asked or encoder.name,
            "pretrained": encoder.pretrained,
            "fingerprint": encoder.fingerprint,
            "precision": _precision(encoder),
        },
    }
    return tensors, described


def unpack_context(tensors: dict[str, Tensor], described: Mapping[str, Any], device: str) -> Context:
    """The context that `pack_context` packed; its tensors are taken out of `tensors`.

    Raises:
        KeyError, TypeError: tensors or entries are missing.
        UserError: the encoder cannot be loaded, or is no longer the one it was.
    """
    support, projection = taken("support", tensors), taken("projection", tensors)
    encoder = described.get("encoder")  # posteriors of earlier versions have none
    return Context(
        tensors.pop("text_features").to(device),
        tuple(described["class_names"]),
        described["logit_scale"],
        described["has_text"],
        described.get("width"),
        Support(**{name: part.to(device) for name, part in support.items()}) if support else None,
        None if encoder is None else _encoder(encoder, device),
        tuple(described.get("templates", ())),
        Projection(**{name: part.to(device) for name, part in projection.items()}) if projection else None,
    )


def _precision(encoder: Backbone) -> str:
    """What --precision was: on a CPU both are the same, and a GPU may then choose."""
    return "float32" if encoder.device != "cpu" and not encoder.half else "auto"


def _encoder(described: Mapping[str, Any], device: str) -> Backbone:
    from bayes_clip.backbone.encoder import load_backbone

    precision = described.get("precision", "auto")  # earlier versions had no choice
    encoder = load_backbone(described["name"], described["pretrained"], device, precision)
    if encoder.fingerprint != described["fingerprint"]:
        raise UserError(
            f"{described['name']}: its fingerprint is {encoder.fingerprint}, and the posterior was fitted "
            f"with {described['fingerprint']}; restore those weights, or take it over to the new ones"
        )
    return encoder
