"""What a task says of its classes: their names, and which of them are known by text or labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bayes_clip.data.checks import names_of_classes
from bayes_clip.errors import UserError

MOST_CLASSES = 100_000  # of a partial task, where the number of rows does not bound it
UNEQUAL = 2  # times as many labels, from which on a note says so
MANY = 5  # how many names a note lists before it says "and more"


def class_names_of(
    names: Any, text: Tensor | None, labels: Tensor, where: str, partial: bool
) -> tuple[str, ...]:
    """Names of the C classes, where C is told by the names, else the text features, else the labels."""
    if names is None:
        count = len(text) if text is not None else _count_of_labels(labels, where, partial)
        checked = tuple(f"class {index}" for index in range(count))
    else:
        checked = names_of_classes(names, where + "class_names")
    if text is not None and len(text) != len(checked):
        raise UserError(
            f"{where}text_features has {len(text)} rows for {len(checked)} class_names; give one per class"
        )
    if len(checked) < 2 and not partial:
        raise UserError(f"{where}there is one class only; classification needs at least two")
    return checked


def check_query_labels(
    truth: Tensor, labels: Tensor, names: tuple[str, ...], has_text: bool, where: str
) -> None:
    """Refuse query labels of classes that nothing is known of."""
    if has_text:
        return
    missing = ~torch.isin(truth, labels)
    if missing.any():
        row = int(missing.nonzero()[0])
        label = int(truth[row])
        raise UserError(
            f"{where}query_labels row {row} is class {label} ('{names[label]}'), which has no support row "
            "and no text feature; add support rows of it or drop its query rows"
        )


def classes_without_support(labels: Tensor, names: tuple[str, ...], has_text: bool, where: str) -> list[str]:
    """A note on classes known by text alone; a refusal where there is no text either."""
    present = set(labels.tolist())
    missing = [name for index, name in enumerate(names) if index not in present]
    if len(present) < 2:
        only = names[next(iter(present))]
        raise UserError(f"{where}support_labels holds one class only ('{only}'); at least two are needed")
    if not missing:
        return []
    unseen = listed([f"'{name}'" for name in missing])
    count = f"{len(missing)} of {len(names)} classes have no support row ({unseen})"
    if not has_text:
        raise UserError(f"{where}{count} and there are no text features; add rows or leave those classes out")
    return [f"{count}: known by their text alone"]


def _count_of_labels(labels: Tensor, where: str, partial: bool) -> int:
    """C where only the labels tell it. In a whole task each class then needs a row, so C cannot exceed N."""
    row = int(labels.argmax())
    largest = int(labels[row])
    most = MOST_CLASSES if partial else len(labels)
    if largest >= most:
        raise UserError(
            f"{where}support_labels row {row} ({largest}) is out of range: without class_names or "
            f"text_features the labels of {len(labels)} rows run from 0 to at most {most - 1}"
        )
    return largest + 1


def repeated_names(names: tuple[str, ...]) -> list[str]:
    """A note on names that more than one class goes by."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if not repeated:
        return []
    quoted = [f"'{name}'" for name in repeated]
    return [f"class names that stand for more than one class: {listed(quoted)}"]


def unequal_shots(labels: Tensor, names: tuple[str, ...]) -> list[str]:
    """A note on classes of which one has twice the labels of another: how many, and what that does."""
    counts = torch.bincount(labels, minlength=len(names))
    present = torch.nonzero(counts)[:, 0]
    fewest, most = present[counts[present].argmin()], counts.argmax()
    if counts[most] < UNEQUAL * counts[fewest]:
        return []
    return [
        f"unequal numbers of labels: from {int(counts[fewest])} ('{names[fewest]}') to {int(counts[most])} "
        f"('{names[most]}') a class, and learned as that frequent: --class-prior even takes it out "
        "again, --shots K takes at most K of each"
    ]


def listed(parts: Sequence[str]) -> str:
    """The first of `parts` in words, and how many more there are."""
    more = len(parts) - MANY
    return ", ".join(parts[:MANY]) + (f" and {more} more" if more > 0 else "")
