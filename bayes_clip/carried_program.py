"""How each kind of program is carried to another encoder: see the table of `transporting`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from bayes_clip.carried import HeadPrior, carried_head
from bayes_clip.carried_flat import SiteMap, carried_as_it_is, carried_by_site, disagreement
from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.feature_maps import FeatureMap, fit_map
from bayes_clip.gaussian import Belief, Diagonal, Full, LowRankPrecision, VariationalDiagonal
from bayes_clip.inference.program import Program, read_program
from bayes_clip.inputs import inputs_of
from bayes_clip.model import AdapterModel, Context, TextSideModel
from bayes_clip.posterior import Posterior

if TYPE_CHECKING:  # open_clip takes seconds to import; feature programs do without
    from bayes_clip.backbone.encoder import Backbone

MOST_COMPARED = 256  # pictures on which the logits of two encoders are compared


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
class Carried:
    """What becomes of a posterior on another encoder."""

    belief: Belief
    program: AdapterModel
    read: Program  # the same, as it reads
    noise: float  # process noise, as a multiple of the prior variance (mean over the classes)
    map: FeatureMap | None = None  # None where weights stay as they are


def carried_program(
    posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str | None, what: str
) -> Carried:
    """The belief and the program on the new encoder; arguments and refusals as of `transport`."""
    program = posterior.program
    if isinstance(program, TextSideModel):
        return _text_side(posterior, to, first, second)
    if program.takes == "unit" and not program.uses_encoder and posterior.logits.program.is_head:
        return _head(posterior, to, first, second, kind or "ridge", what)
    if program.feature_axes:
        return _by_site(posterior, to, first, second, kind or "procrustes")
    raise UserError(
        f"{posterior.source.settings.model}: nothing says what its weights do on {to.name}: it is no linear "
        "head on image features, not on the text side, and has no feature_axes; fit again there"
    )


def _head(posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str, what: str) -> Carried:
    program, read, like = posterior.program, posterior.logits.program, posterior.weights.mean
    there, carrier = _on_features(posterior, to, first, second, kind)
    scales = program.logit_scale, to.logit_scale
    # the rows that the weights multiply; they are the features but where a program adds columns
    rows = (
        read.design(first.features.to(like)) / scales[0],
        there.design(second.features.to(like)) / scales[1],
    )
    mapped = fit_map(*rows, kind)
    centre = None
    if what == "labels":
        centre = scales[1] / scales[0] * there.prior_mean.double() @ mapped.back.mT
    before = HeadPrior(read.prior_mean, read.prior_variance, scales[0])
    after = HeadPrior(there.prior_mean, there.prior_variance, scales[1])
    carried = carried_head(posterior.weights, before, after, mapped, centre)
    return Carried(carried.belief, carrier, there, float(carried.noise.mean()), mapped)


def _by_site(posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str) -> Carried:
    program, read, weights = posterior.program, posterior.logits.program, posterior.weights
    if not isinstance(weights, Full | Diagonal | VariationalDiagonal | LowRankPrecision):
        raise _no_covariance(posterior)
    there, carrier = _on_features(posterior, to, first, second, kind)
    mapped = fit_map(first.features, second.features, kind)
    ratio = program.logit_scale / to.logit_scale
    axes = program.feature_axes
    matrices = (ratio * mapped.matrix.to(weights.mean.device), mapped.untold.to(weights.mean.device))
    through = SiteMap(read.sites, there.sites, axes, *matrices)
    _check_sites(posterior, to, there, axes)
    step = through((weights.mean - read.prior_mean).double()[:, None])[:, 0]
    start = there.prior_mean.double()
    rows = _compared(program, carrier, first, second)
    noise = _noise(read, there, weights.mean, (start + step).to(weights.mean), rows)
    decay = (1 + noise) ** -0.5
    belief = carried_by_site(
        weights, start + decay * step, read.prior_variance, there.prior_variance, through, decay
    )
    return Carried(belief, carrier, there, noise, mapped)


def _text_side(posterior: Posterior, to: Destination, first: Rows, second: Rows) -> Carried:
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
    return Carried(belief, carrier, there, noise)


def _on_features(
    posterior: Posterior, to: Destination, first: Rows, second: Rows, kind: str
) -> tuple[Program, AdapterModel]:
    """The program on the new encoder, with s² v kept and the labelled rows it keeps mapped there."""
    program, like = posterior.program, posterior.weights.mean
    context = _context(program, to, like, second.features.shape[1])
    if context.support is not None:
        back = fit_map(first.features, second.features, kind).back.to(like.device)
        rows = normalize(context.support.inputs.double() @ back, dim=-1)
        context = replace(context, support=replace(context.support, inputs=rows.to(like)))
    ratio = program.logit_scale / to.logit_scale
    carrier = type(program)(context, ratio**2 * program.prior_variance)
    return _read(carrier, like), carrier


def _noise(
    first: Program, second: Program, before: Tensor, after: Tensor, rows: tuple[Tensor, Tensor]
) -> float:
    """q: by how much what the weights change about the logits differs, over the prior variance of a logit."""
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
            name, shapes = posterior.source.settings.model, (tuple(site.shape), tuple(other.shape))
            raise UserError(
                f"{name}: its '{site.name}' has the shape {shapes[0]}, and {shapes[1]} on {to.name}: {why}; "
                "fit again there"
            )


def _no_covariance(posterior: Posterior) -> UserError:
    name, kind = posterior.source.settings.model, type(posterior.weights).__name__
    return UserError(
        f"{name}: {kind} weights have no covariance to carry over; fit again with --engine ekf or laplace"
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
