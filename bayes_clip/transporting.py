"""A posterior fitted on one encoder as the prior on another: labels are not asked for again.

What carries how:

| program | how |
|---|---|
| linear heads on image features: `linear_probe`, `clap`, `gda`, your own | what labels said, through a map between the two feature spaces, met with the new encoder's own zero-shot: `carried` |
| programs that say which axes of their weights lie in the feature space (`AdapterModel.feature_axes`): `task_residual`, `tip_adapter` | what labels changed about the untrained method, site by site through the map, re-centred on the new encoder's: `carried_flat` |
| programs on the text side: `coop`, `coop_class`, `contcoop` | weights in the space of the text tokens as they are, with process noise; refused where tokens differ in width |
| all others: `clip_adapter` (its hidden units are drawn anew for every width), `visual_projection` and `lora` (they work inside the image tower) | refused: no map of features says what their weights do |

Labelled rows that a program keeps (a cache, class means) are mapped as well. The result is a posterior of the
engine ekf: `update` goes on with labels on the new encoder.
"""  # noqa: E501 - a table

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from bayes_clip.carried_program import Destination, carried_program
from bayes_clip.data.arrays import is_array_file
from bayes_clip.data.encode import encode_class_names
from bayes_clip.data.resolve import load_input
from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FeatureMap
from bayes_clip.gaussian import FAMILIES
from bayes_clip.inference.stream import Stream, canonical
from bayes_clip.posterior import Posterior
from bayes_clip.precision import full_precision

if TYPE_CHECKING:  # open_clip takes seconds to import; feature programs do without
    from bayes_clip.backbone.encoder import Backbone


@dataclass(frozen=True)
class Transported:
    """A posterior on another encoder, and how it came there."""

    posterior: Posterior
    map: FeatureMap | None  # None where weights stay as they are
    noise: float  # process noise, as a multiple of the prior variance (mean over the classes)
    seconds: float
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        through = "weights as they are" if self.map is None else repr(self.map)
        noise = f"process noise {self.noise:.3g} of the prior"
        return f"Transported({self.posterior!r}: {through}, {noise}, {self.seconds:.2f} s)"


def destination(
    posterior: Posterior, backbone: Backbone, templates: tuple[str, ...] | None = None
) -> Destination:
    """What `backbone` says of the posterior's classes.

    Prompts from `templates`, else those that the posterior was fitted with, else the backbone's own.
    """
    text: Tensor | None = None
    notes: tuple[str, ...] = ()
    templates = templates or posterior.program.context.templates or None
    if posterior.program.context.has_text:
        text, notes = encode_class_names(backbone, posterior.class_names, templates)
    return Destination(backbone.name, backbone.fingerprint, text, backbone.logit_scale, backbone, notes)


def origin_of(
    posterior: Posterior,
    name: str | None = None,
    pretrained: str | None = None,
    device: str = "cpu",
    precision: str = "auto",
) -> Backbone:
    """The encoder that the posterior was fitted with: the one named, else its own, else pocket_clip.

    Raises:
        UserError: it is another one, or nothing says which.
    """
    from bayes_clip.backbone.encoder import load_backbone

    own = posterior.source.backbone
    if name is None and pretrained is not None:
        raise UserError(
            f"--from-pretrained {pretrained}: of which model? add --from, such as --from ViT-B-32"
        )
    if name is None and own is None:
        raise UserError(
            "the posterior was fitted to bare features, and nothing says which encoder they are of; "
            "name it with --from and --from-pretrained"
        )
    if name is None and posterior.program.context.encoder is not None:
        return posterior.program.context.encoder
    if name is None:
        encoder = load_backbone(device=device)
    else:
        encoder = load_backbone(name, pretrained, device, precision)
    if own is not None and own != encoder.fingerprint:
        raise UserError(
            f"--from {encoder.name}: its fingerprint is {encoder.fingerprint}, and the posterior was fitted "
            f"with {own}; name that encoder with --from and --from-pretrained"
        )
    return encoder


def unlabelled_rows(
    path: str | Path, before: Backbone, after: Backbone, skip_broken: bool = False
) -> tuple[Rows, Rows]:
    """The pictures at `path` as both encoders see them.

    Raises:
        UserError: a feature file, which one encoder has made, or whatever `load_input` refuses.
    """
    if is_array_file(Path(path)):
        raise UserError(f"--unlabelled {path}: features of one encoder; give pictures, which both can see")
    first, second = (load_input(path, encoder, skip_broken).rows for encoder in (before, after))
    return first, second


@torch.no_grad()
@full_precision()
def transport(
    posterior: Posterior,
    to: Destination,
    first: Rows,
    second: Rows,
    kind: str | None = None,
    what: Literal["labels", "deviation"] = "labels",
) -> Transported:
    """`posterior` as the prior on another encoder, from rows of the same unlabelled pictures in both.

    `first` are the pictures as the posterior's encoder sees them, `second` as `to` does. `kind` is the
    map between them (`fit_map`): unless given, ridge for linear heads and procrustes for other programs, to
    whose logits the length of weights matters. Of a linear head `what` its labels settled is carried, or its
    plain deviation from zero-shot (`carried`); of other programs the deviation. The prior variance of a logit
    stays: s² v transfers between encoders. A posterior of laplace or vi becomes one of ekf. What was held out
    for verdicts is of the first encoder and stays behind.

    Raises:
        UserError: a program or a covariance that cannot be carried, or whatever `fit_map` refuses.
    """
    start = time.perf_counter()
    known, carried = posterior.weights, carried_program(posterior, to, first, second, kind, what)
    family = next(name for name, of in FAMILIES.items() if isinstance(carried.belief, of))
    notes = list(to.notes)
    if type(carried.belief) is not type(known):
        notes.append(f"covariance {type(known).__name__} is carried as {family}")
    notes.append("in/out verdicts and abstention need labels held out on the new encoder: there are none")
    settings = replace(posterior.source.settings, engine="ekf", covariance=family)
    source = replace(
        posterior.source,
        settings=settings,
        backbone=to.fingerprint,
        prior_variance=carried.program.prior_variance,
    )
    read, before = carried.read, posterior.stream
    stream = Stream(
        read.prior_mean,
        read.prior_variance,
        steps=1 if before is None else before.steps,
        noise=None if before is None else before.noise,
    )
    moved = Posterior(carried.program, canonical(carried.belief), source, stream)
    return Transported(moved, carried.map, carried.noise, time.perf_counter() - start, tuple(notes))
