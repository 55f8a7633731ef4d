"""A posterior fitted on one encoder as the prior on another: labels are not asked for again.

What carries how:

| program | how |
|---|---|
| linear heads on image features: `linear_probe`, `clap`, `gda`, your own | what labels changed about zero-shot, through a map between the two feature spaces, re-centred on the new encoder's own zero-shot: `carried` |
| programs that say which axes of their weights lie in the feature space (`AdapterModel.feature_axes`): `task_residual`, `tip_adapter` | the same, site by site: `carried_flat` |
| programs on the text side: `coop`, `coop_class`, `contcoop` | weights in the space of the text tokens as they are, with process noise; refused where tokens differ in width |
| all others: `clip_adapter` (its hidden units are drawn anew for every width), `visual_projection` and `lora` (they work inside the image tower) | refused: no map of features says what their weights do |

Labelled rows that a program keeps (a cache, class means) are mapped as well. The result is a posterior of the
engine ekf: `update` goes on with labels on the new encoder.
"""  # noqa: E501 - a table

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.carried import HeadPrior, carried_head
from bayes_clip.carried_flat import SiteMap, carried_as_it_is, carried_by_site, disagreement
from bayes_clip.data.arrays import is_array_file
from bayes_clip.data.encode import encode_class_names
from bayes_clip.data.resolve import load_input
from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FeatureMap, fit_map
from bayes_clip.gaussian import FAMILIES, Belief, Diagonal, Full, LowRankPrecision, VariationalDiagonal
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
    program, known = posterior.program, posterior.weights
    if isinstance(program, TextSideModel):
        carried = _text_side(posterior, to, first, second)
    elif _is_head(posterior):
        carried = _head(posterior, to, first, second, kind)
    elif program.feature_axes:
        carried = _by_site(posterior, to, first, second, kind)
    else:
        raise UserError(
            f"{posterior.source.settings.model}: nothing says what its weights do on {to.name}: it is no linear "
            "head on image features, not on the text side, and declares no feature_axes; fit again there"
        )
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


@dataclass(frozen=True)
class _Carried:
    belief: Belief
    program: AdapterModel
    read: Program  # the same, as it reads
    noise: float
    map: FeatureMap | None = None


def _is_head(posterior: Posterior) -> bool:
    """Whether its weights are those of a linear head on image features as they leave the encoder."""
    program = posterior.program
    return program.takes == "unit" and not program.uses_encoder and posterior.logits.program.is_head


def _head(posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str) -> _Carried:
    program, read, like = posterior.program, posterior.logits.program, posterior.weights.mean
    there, carrier = _on_features(posterior, to, first, second, kind)
    scales = program.logit_scale, to.logit_scale
    # the rows that the weights multiply; they are the features but where a program adds columns
    designs = (read.design(first.features.to(like)), there.design(second.features.to(like)))
    mapped = fit_map(*(design / scale for design, scale in zip(designs, scales, strict=True)), kind)
    priors = (
        HeadPrior(of.prior_mean, of.prior_variance, scale)
        for of, scale in zip((read, there), scales, strict=True)
    )
    carried = carried_head(posterior.weights, *priors, mapped)
    return _Carried(carried.belief, carrier, there, float(carried.noise.mean()), mapped)


def _by_site(posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str) -> _Carried:
    program, read, weights = posterior.program, posterior.logits.program, posterior.weights
    if not isinstance(weights, Full | Diagonal | VariationalDiagonal | LowRankPrecision):
        raise _no_covariance(posterior)
    there, carrier = _on_features(posterior, to, first, second, kind)
    mapped = fit_map(first.features, second.features, kind)
    ratio = program.logit_scale / to.logit_scale
    axes = program.feature_axes
    through = SiteMap(read.sites, there.sites, axes, ratio * mapped.matrix.to(weights.mean.device))
    _check_sites(posterior, to, there, axes)
    step = through((weights.mean - read.prior_mean).double()[:, None])[:, 0]
    start = there.prior_mean.double()
    rows = _compared(program, carrier, first, second)
    noise = _noise(read, there, weights.mean, (start + step).to(weights.mean), rows)
    decay = (1 + noise) ** -0.5
    belief = carried_by_site(
        weights, start + decay * step, read.prior_variance, there.prior_variance, through, decay
    )
    return _Carried(belief, carrier, there, noise, mapped)


def _text_side(posterior: Posterior, to: Destination, first: Rows, second: Rows) -> _Carried:
    program, read, weights = posterior.program, posterior.logits.program, posterior.weights
    if not isinstance(weights, Full | Diagonal | VariationalDiagonal | LowRankPrecision):
        raise _no_covariance(posterior)
    context, encoder = _context(program, to, weights.mean, second.features.shape[1]), program.context.encoder
    if encoder is not None:  # the prompts that the weights were learned in
        context = replace(context, templates=context.templates or encoder.default_templates)
    carrier = type(program)(context, program.prior_variance)
    there = _read(carrier, weights.mean)
    _check_sites(posterior, to, there, {})
    rows = _compared(program, carrier, first, second)
    noise = _noise(read, there, weights.mean, weights.mean, rows)
    belief = carried_as_it_is(weights, there.prior_mean, there.prior_variance, noise)
    return _Carried(belief, carrier, there, noise)


def _on_features(
    posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str
) -> tuple[Program, AdapterModel]:
    """The program on the new encoder, with s² v kept and the labelled rows it keeps mapped there."""
    program, like = posterior.program, posterior.weights.mean
    context = _context(program, to, like, second.features.shape[1])
    if context.support is not None:
        back = fit_map(second.features, first.features, kind).matrix.to(like.device)
        rows = normalize(context.support.inputs.double() @ back.mT, dim=-1)
        context = replace(context, support=replace(context.support, inputs=rows.to(like)))
    ratio = program.logit_scale / to.logit_scale
    carrier = type(program)(context, ratio**2 * program.prior_variance)
    return _read(carrier, like), carrier


def _noise(
    first: Program, second: Program, before: Tensor, after: Tensor, rows: tuple[Tensor, Tensor]
) -> float:
    """q: what the weights change about the logits of either encoder differs by, over a logit's prior variance."""
    changes = [
        program.logits(weights, inputs) - program.logits(program.prior_mean, inputs)
        for program, weights, inputs in zip((first, second), (before, after), rows, strict=True)
    ]
    design = second.design(rows[1])
    prior = torch.einsum("bkp,p->bk", design.square(), second.prior_variance).double().mean()
    return disagreement(*changes) / float(prior)


def _compared(
    program: AdapterModel, carrier: AdapterModel, first: Rows, second: Rows
) -> tuple[Tensor, Tensor]:
    """Some of the pictures as the program takes them, on either encoder."""
    some = slice(None, None, max(1, len(first) // MOST_COMPARED))
    sides = zip((program, carrier), (first, second), strict=True)
    seen = [inputs_of(type(one), one.context, rows)[some] for one, rows in sides]
    like = program.text_features
    return seen[0].to(like), seen[1].to(like)


def _check_sites(posterior: Posterior, to: Destination, there: Program, axes: Mapping[str, int]) -> None:
    for site, other in zip(posterior.logits.program.sites, there.sites, strict=True):
        own, new = list(site.shape), list(other.shape)
        if site.name in axes:
            own[axes[site.name]] = new[axes[site.name]]
        if own != new:
            why = "it has other sizes there" if axes else "their text tokens differ in width"
            raise UserError(
                f"{posterior.source.settings.model}: its '{site.name}' has the shape {tuple(site.shape)}, and "
                f"{tuple(other.shape)} on {to.name}: {why}; fit again there"
            )


def _no_covariance(posterior: Posterior) -> UserError:
    return UserError(
        f"{posterior.source.settings.model}: {type(posterior.weights).__name__} weights have no covariance to "
        "carry over; fit again with --engine ekf or laplace"
    )


def _context(program: AdapterModel, to: Destination, like: Tensor, width: int) -> Context:
    """The program's context on the new encoder.

    Raises:
        UserError: the posterior has text features and the new encoder gives none.
    """
    context, text = program.context, to.text_features
    if context.has_text and text is None:
        raise UserError(
            f"{to.name}: no text features of the classes, which the posterior has; give a backbone"
        )
    if text is None:
        text = torch.zeros(len(context.class_names), width)
    encoder = None if context.encoder is None else to.encoder
    return replace(context, text_features=text.to(like), logit_scale=to.logit_scale, encoder=encoder)


def _read(program: AdapterModel, like: Tensor) -> Program:
    return read_program(program, like.new_full((1, program.width), program.width**-0.5))
