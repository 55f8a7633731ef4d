"""Which program runs under which engine on which task, asked before any work is done."""

from __future__ import annotations

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.inputs import task_context
from bayes_clip.model import AdapterModel


def why_not(kind: type[AdapterModel], name: str, engine: str, task: Task) -> str | None:
    """Why the program `kind`, called `name`, cannot be fitted by `engine` to `task`; None where it can."""
    if kind.engines is not None and engine not in kind.engines:
        return f"{name} runs under {', '.join(kind.engines)}, not under {engine}; use one of them"
    if engine == "sgd" and kind.recipe is None:
        return f"{name} has no recipe of gradient steps for sgd; use map, or give its class a `recipe`"
    if engine == "zero_shot" and task.text_features is None:
        return f"{task.name}: zero_shot needs text_features, and there are none; use another engine"
    if kind.needs_text and task.text_features is None:
        return (
            f"{task.name}: {name} compares images with class texts, and there are no text_features; add them"
        )
    try:
        task_context(kind, task)
    except UserError as error:
        return str(error)
    return None
