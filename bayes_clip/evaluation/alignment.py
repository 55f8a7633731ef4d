"""A task in the class order of a posterior: folders sort by name, a posterior adds new classes at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bayes_clip.class_changes import unnamed
from bayes_clip.data.task import Task
from bayes_clip.errors import UserError


def in_class_order(task: Task, names: Sequence[str]) -> Task:
    """`task` with its query labels numbered as in `names` (C,), and these as its class names.

    Classes are matched by name, and by number where one side knows no names. Classes of the task without
    query rows need not be known; of `names` some may be absent. Only the query set is meant to be used.

    Raises:
        UserError: a query row of a class that `names` lacks, a name that stands twice, or another number of
            classes where one side has no names.
    """
    if tuple(task.class_names) == tuple(names):
        return task
    if unnamed(task.class_names) or unnamed(names):
        if len(task.class_names) != len(names):
            raise UserError(
                f"{task.name} has {len(task.class_names)} classes and the posterior {len(names)}, and one "
                "side knows no names to match them by; give class_names"
            )
        return replace(task, class_names=tuple(names))
    for side, listed in ((task.name, task.class_names), ("the posterior", names)):
        twice = next((name for name in listed if list(listed).count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{side}: two classes are called '{twice}', rename one")
    places = {name: place for place, name in enumerate(names)}
    asked = {task.class_names[label] for label in task.query_labels.unique().tolist()}
    unknown = sorted(asked - places.keys())
    if unknown:
        raise UserError(
            f"{task.name}: the posterior does not know its class '{unknown[0]}'"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + "; teach it with 'bayes-clip update', or evaluate on classes that it knows"
        )
    order = torch.tensor([places.get(name, 0) for name in task.class_names], device=task.query_labels.device)
    return replace(task, query_labels=order[task.query_labels], class_names=tuple(names))
