"""A posterior fitted on one encoder as the prior on another: labels are not asked for again.

What carries how:

| program | how |
|---|---|
| linear heads on image features (``linear_probe``, your own) | through a map between the two feature spaces: what labels changed about zero-shot, re-centred on the new encoder's own zero-shot; see `carried` |
| the same with a cache or class means (``uses_support``) | their labelled rows are mapped as well |
| programs on the text side (`TextSideModel`) | weights in the space of the text tokens stay as they are, with process noise; refused where the widths of the tokens differ |
| all others | refused: no map of features says what they do in the new space |

The result is a posterior of the engine ekf: `update` goes on with labels on the new encoder.
"""  # noqa: E501 - a table

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.carried import HeadPrior, carried_flat, carried_head, disagreement
from bayes_clip.data.arrays import is_array_file
from bayes_clip.data.encode import encode_class_names
from bayes_clip.data.resolve import load_input
from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FeatureMap, fit_map
from bayes_clip.gaussian import FAMILIES, Belief
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inference.stream import Stream, canonical
from bayes_clip.inputs import inputs_of
from bayes_clip.model import AdapterModel, Context, TextSideModel
from bayes_clip.posterior import Posterior
from bayes_clip.precision import full_precision

if TYPE_CHECKING:  # open_clip takes seconds to import; feature programs do without
    from bayes_clip.backbone.encoder import Backbone

MOST_COMPARED = 256  # pictures on which the logits of two encoders are compared
DEFAULT_MAP = "ridge"


@dataclass(frozen=True)
class Destination:
    """The encoder that a posterior is carried to, and what it says of the posterior's classes."""

    name: str
    fingerprint: str | None  # None for bare features
    text_features: Tensor | None  # (C, D₂) unit rows, in the order of the posterior's classes
    logit_scale: float
    encoder: Backbone | None = None
    notes: tuple[str, ...] = ()


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
    posterior: Posterior, name: str | None = None, pretrained: str | None = None, device: str = "cpu"
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
    encoder = load_backbone(device=device) if name is None else load_backbone(name, pretrained, device)
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
    posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str = DEFAULT_MAP
) -> Transported:
    """`posterior` as the prior on another encoder, from rows of the same unlabelled pictures in both.

    `first` are the pictures as the posterior's encoder sees them, `second` as that of `to` does; `kind` is
    the map between them (`fit_map`). The prior variance of a logit stays: s² v transfers between encoders. A
    posterior of laplace or vi becomes one of ekf. What was held out for verdicts is of the first encoder and
    stays behind.

    Raises:
        UserError: a program or a covariance that cannot be carried, or whatever `fit_map` refuses.
    """
    start = time.perf_counter()
    program, kept = posterior.program, posterior.weights
    if isinstance(program, TextSideModel):
        weights, carrier, noise = _text_side(posterior, to, first, second)
        mapped = None
    elif _is_head(posterior):
        rows = first.features, second.features
        mapped = fit_map(*rows, kind)
        back = fit_map(*reversed(rows), kind) if program.context.support is not None else None
        weights, carrier, noise = _head(posterior, to, mapped, back)
    else:
        raise UserError(
            f"{posterior.source.settings.model}: it is no linear head on image features and not on the text "
            f"side, so nothing says what its weights do on {to.name}; fit again there"
        )
    family = next(name for name, of in FAMILIES.items() if isinstance(weights, of))
    notes = list(to.notes)
    if type(weights) is not type(kept):
        notes.append(f"covariance {type(kept).__name__} is carried as {family}")
    notes.append("in/out verdicts and abstention need labels held out on the new encoder: there are none")
    source = posterior.source
    settings = replace(source.settings, engine="ekf", covariance=family)
    source = replace(
        source, settings=settings, backbone=to.fingerprint, prior_variance=carrier.prior_variance
    )
    read = _read(carrier, weights.mean)
    before = posterior.stream
    stream = Stream(
        read.prior_mean,
        read.prior_variance,
        steps=1 if before is None else before.steps,
        noise=None if before is None else before.noise,
    )
    moved = Posterior(carrier, canonical(weights), source, stream)
    return Transported(moved, mapped, noise, time.perf_counter() - start, tuple(notes))


def _is_head(posterior: Posterior) -> bool:
    """Whether its weights are those of a linear head on image features as they leave the encoder."""
    program = posterior.program
    return program.takes == "unit" and not program.uses_encoder and posterior.logits.program.is_head


def _head(
    posterior: Posterior, to: Destination, mapped: FeatureMap, back: FeatureMap | None
) -> tuple[Belief, AdapterModel, float]:
    program, like = posterior.program, posterior.weights.mean
    read = posterior.logits.program
    ratio = program.logit_scale / to.logit_scale
    context = _context(program.context, to, like, len(mapped.matrix))
    if context.support is not None and back is not None:
        rows = normalize(context.support.inputs.double() @ back.matrix.to(like.device), dim=-1)
        context = replace(context, support=replace(context.support, inputs=rows.to(like)))
    carrier = type(program)(context, ratio**2 * program.prior_variance)
    there = _read(carrier, like)
    first = HeadPrior(read.prior_mean, read.prior_variance, program.logit_scale)
    second = HeadPrior(there.prior_mean, there.prior_variance, to.logit_scale)
    carried = carried_head(posterior.weights, first, second, mapped)
    return carried.belief, carrier, float(carried.noise.mean())


def _text_side(
    posterior: Posterior, to: Destination, first: Rows, second: Rows
) -> tuple[Belief, AdapterModel, float]:
    """Process noise: what the weights change about the logits of each encoder, compared on the pictures."""
    program, weights = posterior.program, posterior.weights
    name, like = posterior.source.settings.model, weights.mean
    if not isinstance(weights, tuple(FAMILIES.values())):
        raise UserError(
            f"{name}: {type(weights).__name__} weights take no process noise; fit again with --engine ekf"
        )
    read = posterior.logits.program
    context, encoder = _context(program.context, to, like, second.features.shape[1]), program.context.encoder
    if encoder is not None:  # the prompts that the weights were learned in
        context = replace(context, templates=context.templates or encoder.default_templates)
    carrier = type(program)(context, program.prior_variance)
    there = _read(carrier, like)
    for site, other in zip(read.sites, there.sites, strict=True):
        if site.shape != other.shape:
            raise UserError(
                f"{name}: its '{site.name}' has the shape {tuple(site.shape)}, and {tuple(other.shape)} on "
                f"{to.name}: their text tokens differ in width; fit again there"
            )
    rows = slice(None, None, max(1, len(first) // MOST_COMPARED))
    seen = (_inputs(program, first)[rows].to(like), _inputs(program, second)[rows].to(like))
    changes = [
        read_.logits(like, inputs) - read_.logits(read_.prior_mean, inputs)
        for read_, inputs in zip((read, there), seen, strict=True)
    ]
    design = there.design(seen[1])
    prior = torch.einsum("bkp,p->bk", design.square(), there.prior_variance).double().mean()
    noise = disagreement(*changes) / float(prior)
    return carried_flat(weights, there.prior_mean, there.prior_variance, noise), carrier, noise


def _context(context: Context, to: Destination, like: Tensor, width: int) -> Context:
    """The program's context on the new encoder.

    Raises:
        UserError: the posterior has text features and the new encoder gives none.
    """
    if context.has_text and to.text_features is None:
        raise UserError(
            f"{to.name}: no text features of the classes, which the posterior has; give a backbone"
        )
    text = to.text_features
    if text is None:
        text = torch.zeros(len(context.class_names), width)
    return replace(
        context,
        text_features=text.to(like),
        logit_scale=to.logit_scale,
        encoder=None if context.encoder is None else to.encoder,
    )


def _inputs(program: AdapterModel, rows: Rows) -> Tensor:
    return inputs_of(type(program), program.context, rows)


def _read(program: AdapterModel, like: Tensor) -> Program:
    return read_program(program, like.new_full((1, program.width), program.width**-0.5))
