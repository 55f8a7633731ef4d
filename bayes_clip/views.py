"""What the epochs of a training see of a task: random views of its pictures, or its features as they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from torch import Tensor

from bayes_clip.data.augmentation import augmented_pictures, augmented_rows
from bayes_clip.data.rows import Rows
from bayes_clip.data.task import Task
from bayes_clip.inference.sgd import Views, shots_of
from bayes_clip.inputs import NEEDS_PICTURES, inputs_of
from bayes_clip.model import AdapterModel, Context
from bayes_clip.recipe import MOST_SHOTS

KEPT = 20  # encoded views of each picture, which epochs take in turn: as many as CLAP's authors draw


def augmented_views(kind: type[AdapterModel], context: Context, task: Task, seed: int) -> Views | None:
    """Epoch -> inputs (N, F) made of a random view of every picture; None where it is trained on features.

    Programs that take pixels see a fresh view every epoch; others one of 20, encoded once.
    """
    recipe, encoder, rows = kind.recipe, task.encoder, task.support_rows
    if recipe is None or not recipe.augmentation or encoder is None or rows.pictures is None:
        return None
    pictures, smallest = rows.pictures, recipe.smallest_crop

    def seen(draw: int) -> Tensor:
        if kind.takes in NEEDS_PICTURES:
            views = augmented_pictures(pictures, encoder.image_size, seed, draw, smallest)
            part = Rows(rows.features, rows.norms, views)
        else:
            part = augmented_rows(rows, encoder, seed, draw, smallest)
        # a tensor that inference mode has made takes part in no gradient
        return inputs_of(kind, context, part).clone()

    if kind.takes == "pixels":
        return seen
    kept: Callable[[int], Tensor] = lru_cache(maxsize=KEPT)(seen)
    return lambda epoch: kept(epoch % KEPT)


def deviations(kind: type[AdapterModel], task: Task, views: Views | None) -> tuple[str, ...]:
    """How training `kind` on the task's support set differs from what its authors did, if it does."""
    recipe = kind.recipe
    if recipe is None:
        return ()
    found = list(recipe.deviations)
    shots = shots_of(task.support_labels)
    if shots > MOST_SHOTS:
        found.append(f"{shots} shots trained as long as {MOST_SHOTS}")
    if recipe.augmentation and views is None:
        found.append("one view of each picture, whose features are given")
    elif views is not None:
        rows = len(task.support_labels)
        epochs = -(-recipe.length(rows, shots) // recipe.batches(rows))
        if kind.takes != "pixels" and epochs > KEPT:
            found.append(f"{KEPT} random views of each picture, taken in turn")
        if task.support_pictures is not None and not task.support_pictures.mirrors:
            found.append("no mirror images, which would be of another class")
    return tuple(found)
