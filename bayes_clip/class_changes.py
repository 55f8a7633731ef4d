"""Classes of a posterior and of a task: which are the same, which are new, which go."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError, nearest
from bayes_clip.gaussian import Belief
from bayes_clip.gaussian.classes import (
    site_with_classes,
    site_without_class,
    with_classes,
    without_class,
)
from bayes_clip.inference.kalman import Site
from bayes_clip.inference.program import Program, read_program, require_head
from bayes_clip.inference.stream import Kept, Stream, canonical
from bayes_clip.model import AdapterModel, Context
from bayes_clip.posterior import Posterior


@dataclass(frozen=True)
class Matched:
    """Where each class of a task stands among a posterior's: those from its C on are new."""

    places: tuple[int, ...]
    new_names: tuple[str, ...]
    new_rows: tuple[int, ...]  # which classes of the task they are
    notes: tuple[str, ...]


def match_classes(known: Sequence[str], task: Task, removed: Sequence[str] = ()) -> Matched:
    """Match by name; by number where one side alone knows names (not "class 0", ...) and none is shared.

    A name that is not among the `known` ones is a new class. Classes of the task without a row are left out
    if there is no text for them, or if they have just been `removed`.

    Raises:
        UserError: a name that stands for several classes, a new class without a name on both sides, or rows
            of a class that is being removed.
    """
    names = task.class_names
    rows = torch.bincount(task.support_labels, minlength=len(names)).tolist()
    by_number = unnamed(names) != unnamed(known) and not {*names} & {*known}
    index = {name: place for place, name in enumerate(known)}
    if by_number or tuple(known) == tuple(names):
        index = {name: number for number, name in enumerate(names[: len(known)])}
    else:
        _refuse_repeated(known, "the posterior")
        _refuse_repeated(names, task.name)
    places: list[int] = []
    new: list[int] = []
    for number, name in enumerate(names):
        if name in removed and rows[number]:
            raise UserError(f"--remove-class {name}: {task.name} holds {rows[number]} rows of it; drop one")
        place = index.get(name, -1)
        if place < 0 and name not in removed and (rows[number] or task.text_features is not None):
            if by_number:
                raise UserError(
                    f"{task.name}: {len(names)} classes where the posterior has {len(known)}, and one side "
                    "knows no names to tell the new ones by; give class_names"
                )
            place = len(known) + len(new)
            new.append(number)
        places.append(place)
    notes = []
    if by_number:
        notes.append("classes are matched by their numbers, because one side knows no names")
    for number in new:
        hint = nearest(names[number], known)
        notes.append(f"class '{names[number]}' is new: it enters at its prior.{hint}")
    return Matched(tuple(places), tuple(names[number] for number in new), tuple(new), tuple(notes))


def add_classes(posterior: Posterior, names: Sequence[str], text: Tensor | None) -> Posterior:
    """`posterior` with classes `names` at its end, each at its prior; what is known of the others stays.

    `text` (n, D) are their unit text features; zeros, hence a prior mean of zero, where the posterior has no
    text.

    Raises:
        UserError: a program that is no linear head or whose other priors would change, a covariance that
            takes no classes in, or no text where the posterior has it.
    """
    stream, belief, context = _parts(posterior)
    if text is None and context.has_text:
        raise UserError(
            f"class '{names[0]}' is new and has no text feature, which the other classes have; add "
            "text_features to the task, or give the --backbone to encode its name with"
        )
    if text is None or not context.has_text:
        text = torch.zeros(len(names), context.text_features.shape[1])
    joined = torch.cat([context.text_features, text.to(context.text_features)])
    count = len(context.class_names)
    program = _program(
        posterior, replace(context, text_features=joined, class_names=(*context.class_names, *names))
    )
    head = _head(program, belief.mean, count + len(names))
    _refuse_other_priors(posterior, head.prior_mean[:count], head.prior_variance[:count], stream)
    belief = with_classes(belief, head.prior_mean[count:], head.prior_variance[count:])
    kept = stream.kept
    if kept is not None:
        kept = replace(kept, sites=tuple(_joined(site, len(names)) for site in kept.sites))
    flow = replace(stream, prior_mean=head.prior_mean, prior_variance=head.prior_variance, kept=kept)
    return Posterior(program, canonical(belief), posterior.source, flow)


def remove_class(posterior: Posterior, name: str) -> Posterior:
    """`posterior` without the class `name`; what is known of the others stays.

    What its rows said of the others stays too: kept batches that hold one are not swept again.

    Raises:
        UserError: no such class, one of two, or a program or covariance as in `add_classes`.
    """
    stream, belief, context = _parts(posterior)
    names = context.class_names
    if names.count(name) != 1:
        why = "there are several of it" if name in names else f"no such class.{nearest(name, names)}"
        raise UserError(f"--remove-class {name}: {why} Known: {', '.join(names[:5])}".rstrip())
    if len(names) == 2:
        raise UserError(f"--remove-class {name}: there are only two classes; at least two must stay")
    index = names.index(name)
    rest = [place for place in range(len(names)) if place != index]
    left = replace(
        context,
        text_features=context.text_features[rest],
        class_names=tuple(names[place] for place in rest),
    )
    program = _program(posterior, left)
    head = _head(program, belief.mean, len(rest))
    _refuse_other_priors(posterior, head.prior_mean, head.prior_variance, _rows(stream, rest))
    kept = None if stream.kept is None else _without(stream.kept, index)
    belief = canonical(without_class(belief, index))
    return Posterior(program, belief, posterior.source, replace(_rows(stream, rest), kept=kept))


def _parts(posterior: Posterior) -> tuple[Stream, Belief, Context]:
    """What changes with the classes; refused where the weights do not lie class by class."""
    stream, belief, context = posterior.stream, posterior.weights, posterior.program.context
    assert stream is not None
    require_head(posterior.logits.program, "to add or remove classes")
    return stream, belief, context  # type: ignore[return-value]  # a stream belongs to a belief


def _program(posterior: Posterior, context: Context) -> AdapterModel:
    return type(posterior.program)(context, posterior.program.prior_variance)


def _head(program: AdapterModel, like: Tensor, classes: int) -> Program:
    """`program` as it reads for that many classes, in the dtype and on the device of `like`."""
    width = program.text_features.shape[1]
    head = read_program(program, like.new_full((1, width), width**-0.5))
    require_head(head, "to add or remove classes")
    if len(head.prior_mean) != classes:
        raise UserError(
            f"{head.name}: has {len(head.prior_mean)} outputs however many classes there are; fit again"
        )
    return head


def _refuse_other_priors(posterior: Posterior, mean: Tensor, variance: Tensor, stream: Stream) -> None:
    if torch.equal(mean, stream.prior_mean) and torch.equal(variance, stream.prior_variance):
        return
    raise UserError(
        f"{type(posterior.program).__name__}: the prior of its other classes changes with the classes there "
        "are; fit again"
    )


def _rows(stream: Stream, rest: list[int]) -> Stream:
    return replace(stream, prior_mean=stream.prior_mean[rest], prior_variance=stream.prior_variance[rest])


def _joined(site: Site, count: int) -> Site:
    """The site of a batch, which says nothing of `count` classes more."""
    rows = len(site.linear)
    linear = torch.cat([site.linear, site.linear.new_zeros(rows, count)], dim=1)
    return canonical(Site(site_with_classes(site.matrix, count, rows), linear))


def _without(kept: Kept, index: int) -> Kept:
    """The batches without a row of the class, their sites without it."""
    parts = zip(
        kept.inputs.split(list(kept.sizes)), kept.labels.split(list(kept.sizes)), kept.sites, strict=True
    )
    inputs, labels, sites = [kept.inputs[:0]], [kept.labels[:0]], []
    for rows, classes, site in parts:
        if bool((classes == index).any()):
            continue
        inputs.append(rows)
        labels.append(classes - (classes > index).to(classes))
        linear = torch.cat([site.linear[:, :index], site.linear[:, index + 1 :]], dim=1)
        sites.append(canonical(Site(site_without_class(site.matrix, index, len(classes)), linear)))
    sizes = tuple(len(part) for part in labels[1:])
    return Kept(torch.cat(inputs), torch.cat(labels), sizes, tuple(sites))


def unnamed(names: Sequence[str]) -> bool:
    """Whether the names are only numbers: "class 0", "class 1", ..., as a task without names has them."""
    return all(re.fullmatch(r"class \d+", name) for name in names)


def _refuse_repeated(names: Sequence[str], where: str) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{where}: {count} classes are called '{name}'; to match by name each needs its own"
            )
