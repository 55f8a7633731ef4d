"""Classes that were learned and classes that were not: the base-to-new protocol (Zhou et al. 2022, CoCoOp).

A posterior is fitted on the first half of the classes alone, and tried on each half among its own classes.
"""

from __future__ import annotations

from dataclasses import replace

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.fitting import fit
from bayes_clip.inputs import task_context
from bayes_clip.model import AdapterModel, FunctionModel
from bayes_clip.posterior import Posterior
from bayes_clip.settings import FitSettings


def halves(task: Task) -> tuple[Task, Task]:
    """The task of the first half of the classes (rounded up, as in CoOp), and that of the others.

    Raises:
        UserError: fewer than four classes, or none of the texts that new classes are known by.
    """
    if task.text_features is None:
        raise UserError(f"{task.name}: base-to-new needs text_features: new classes are known by text alone")
    if task.num_classes < 4:
        raise UserError(f"{task.name}: {task.num_classes} classes; base-to-new needs at least four")
    base = -(-task.num_classes // 2)
    return _classes(task, 0, base), _classes(task, base, task.num_classes)


def on_new_classes(posterior: Posterior, new: Task) -> Posterior:
    """What `posterior` says among the classes of `new`, of which it never saw a row; `new`'s stay unused.

    A program whose weights are shared by all classes takes them along: the same posterior over weights, the
    new classes' texts. One whose weights, or labelled rows, stand for single classes knows of others their
    prior alone, and is taken at its mean: zero-shot.

    Raises:
        UserError: a plain Pyro function, which does not say what it does with other classes.
    """
    program = posterior.program
    if isinstance(program, FunctionModel):
        raise UserError(f"{program.name}: a plain function has its classes in it; base-to-new needs a class")
    if has_weights_of_classes(program):
        settings = FitSettings(
            engine="zero_shot",
            device=posterior.source.settings.device,
            dtype=posterior.source.settings.dtype,
        )
        untrained = fit(new, settings).posterior
        return Posterior(untrained.program, untrained.weights, posterior.source)
    context = task_context(type(program), new)
    like = program.text_features
    context = replace(context, text_features=context.text_features.to(like))
    return Posterior(program.on_classes(context), posterior.weights, posterior.source)


def has_weights_of_classes(program: AdapterModel) -> bool:
    """Whether some weights, or the labelled rows it keeps, stand for single classes.

    Asked of the program itself: with one class fewer, its weights would have another shape.
    """
    if program.uses_support:
        return True
    context = program.context
    fewer = replace(context, text_features=context.text_features[1:], class_names=context.class_names[1:])
    other = program.on_classes(fewer).prior()
    return any(other[name].shape() != site.shape() for name, site in program.prior().items())


def _classes(task: Task, first: int, end: int) -> Task:
    """The task with the classes from `first` up to `end` alone, numbered from 0."""
    support = (task.support_labels >= first) & (task.support_labels < end)
    query = (task.query_labels >= first) & (task.query_labels < end)
    if not query.any():
        raise UserError(f"{task.name}: no query rows among classes {first} to {end - 1}; add some")
    part = task.with_support(support)
    assert task.text_features is not None
    norms, pictures, images = task.query_norms, task.query_pictures, task.query_images
    return replace(
        part,
        support_labels=part.support_labels - first,
        query_features=task.query_features[query],
        query_labels=task.query_labels[query] - first,
        query_norms=None if norms is None else norms[query],
        query_pictures=None if pictures is None else pictures.pick(query),
        query_images=None if images is None else images[query],
        class_names=task.class_names[first:end],
        text_features=task.text_features[first:end],
    )


def harmonic(base: float, new: float) -> float:
    """Harmonic mean of two accuracies, the one number of the protocol; 0 where either is."""
    return 2 * base * new / (base + new) if base + new > 0 else 0.0
