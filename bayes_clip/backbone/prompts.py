"""Class prompts with room for learned context tokens, between a tokenizer and a text encoder.

What is fixed is worked out once for each backbone, classes and template: programs are made many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from bayes_clip.backbone.encoder import Backbone
from bayes_clip.backbone.templates import PLACEHOLDER, fill
from bayes_clip.backbone.text_tower import TextTower, text_tower
from bayes_clip.errors import UserError

if TYPE_CHECKING:
    from bayes_clip.model import Context

Key = tuple[object, ...]
MOST_KEPT = 8  # prompts of a backbone

_made: WeakKeyDictionary[Backbone, dict[Key, Prompts]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False, repr=False)
class Prompts:
    """One prompt for each of C classes, L tokens long; M of the template's tokens may be learned.

    The learned ones are those in front of the class name, as in CoOp; in a template that begins with the
    class name ("{} texture."), those behind it.
    """

    tower: TextTower
    fixed: Tensor  # (C, L, W): token plus position embeddings, without the tokens that may be learned
    contexts: Tensor  # (M, W): the embeddings of the template's own words there
    slots: Tensor  # (C, L, M): one where a context token stands
    pool: Tensor  # (C, L): one at the token whose state is the feature
    names: Tensor  # (C, L, W): token embeddings of the class name, zero elsewhere
    is_name: Tensor  # (C, L): whether a token belongs to the class name

    @cached_property
    def before_last(self) -> Tensor:
        """States (C, L, W) in front of the encoder's last block, with the template's own words."""
        classes = torch.arange(len(self.fixed), device=self.fixed.device)
        return self.tower.hidden(self.embedded(self.contexts, classes), last=len(self.tower.blocks) - 1)

    @property
    def numbers(self) -> int:
        """About how many numbers one prompt leaves behind on its way through the encoder."""
        return self.tower.numbers(self.fixed.shape[1])

    def embedded(self, contexts: Tensor, classes: Tensor) -> Tensor:
        """What enters the encoder (..., n, L, W) for the classes (n,), given contexts (..., 1 or n, M, W)."""
        return self.fixed[classes] + self.slots[classes] @ contexts

    def encode(self, contexts: Tensor, classes: Tensor) -> Tensor:
        """Unit features (..., n, D) of the classes (n,), given contexts (..., 1 or n, M, W)."""
        return self.tower.encode(self.embedded(contexts, classes), self.pool[classes])


def class_prompts(
    backbone: Backbone,
    class_names: Sequence[str],
    template: str,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Prompts:
    """The prompts of classes in `template`; the last few that were made are kept while the backbone lives.

    Raises:
        UserError: a text encoder that is no plain open_clip transformer, or prompts longer than it takes.
    """
    kept = _made.setdefault(backbone, {})
    key: Key = (tuple(class_names), template, dtype, str(device))
    if key not in kept:
        if len(kept) == MOST_KEPT:
            del kept[next(iter(kept))]
        kept[key] = _prompts(text_tower(backbone, dtype, device), backbone, class_names, template)
    return kept[key]


def task_prompts(context: Context, *, learned: bool = True) -> Prompts:
    """The prompts of a task's classes in the first of its templates, or of the backbone's.

    `learned`: refuse a template that has no words of its own to learn.

    Raises:
        UserError: no encoder, a template without words, or what `class_prompts` refuses.
    """
    if context.encoder is None:
        raise UserError("programs that learn inside the encoder need one; give pictures, or a --backbone")
    template = (context.templates or context.encoder.default_templates)[0]
    like = context.text_features
    prompts = class_prompts(context.encoder, context.class_names, template, like.dtype, like.device)
    if learned and not len(prompts.contexts):
        raise UserError(
            f"--templates '{template}': has no words that all classes share, and those are what is learned; "
            "give one such as 'a photo of a {}.'"
        )
    return prompts


def _prompts(tower: TextTower, backbone: Backbone, class_names: Sequence[str], template: str) -> Prompts:
    front, _, behind = (part.strip() for part in template.partition(PLACEHOLDER))
    texts = [prompt for name in class_names for prompt in fill((template,), name)]
    numbers = backbone.tokenize(["", front, behind, *texts]).cpu()
    rows, padding = numbers[3:], numbers[0, -1]
    empty, before, after, *contents = (_unpadded(row, padding) for row in numbers)
    opening = _shared(empty, contents[0])  # special tokens in front of any text
    closing = len(empty) - opening  # and behind it
    _check_length(backbone, texts, [len(content) for content in contents], rows.shape[1], template)
    words = [content[: len(content) - closing] for content in contents]
    head = min(_shared(before[: len(before) - closing], row) for row in words)
    tail = min(_shared(after[opening : len(after) - closing].flip(0), row[head:].flip(0)) for row in words)
    count = head - opening
    starts = [opening if count else len(row) - tail for row in words]
    used = max(len(content) for content in contents) if tower.is_trimmable else rows.shape[1]
    names = [(head, len(row) - tail) for row in words]
    return _with_slots(tower, rows[:, :used], starts, count or tail, names)


def _with_slots(
    tower: TextTower, rows: Tensor, starts: list[int], count: int, names: list[tuple[int, int]]
) -> Prompts:
    """Prompts of token numbers (C, L) whose `count` context tokens begin at `starts`; names from and to."""
    positions = tower.positions
    tokens = tower.tokens[rows.to(tower.tokens.device)].to(positions)
    place = torch.arange(rows.shape[1])
    begin = torch.tensor(starts)[:, None, None]
    slots = (place[:, None] == begin + torch.arange(count)).to(positions)
    span = torch.tensor(names)
    is_name = ((place >= span[:, :1]) & (place < span[:, 1:])).to(positions.device)
    pool = torch.nn.functional.one_hot(tower.pooled_places(rows), rows.shape[1])
    return Prompts(
        tower=tower,
        fixed=tokens * (1 - slots.sum(-1, keepdim=True)) + positions[: rows.shape[1]],
        contexts=tokens[0, starts[0] : starts[0] + count],
        slots=slots,
        pool=pool.to(positions),
        names=tokens * is_name[..., None],
        is_name=is_name,
    )


def _unpadded(row: Tensor, padding: Tensor) -> Tensor:
    """Token numbers (n,) without the padding at their end."""
    text = (row != padding).nonzero()
    return row[: int(text[-1]) + 1] if len(text) else row[:0]


def _shared(left: Tensor, right: Tensor) -> int:
    """How many numbers two rows begin with alike."""
    length = min(len(left), len(right))
    same = left[:length] == right[:length]
    return length if bool(same.all()) else int(same.int().argmin())


def _check_length(backbone: Backbone, texts: list[str], lengths: list[int], most: int, template: str) -> None:
    longest = max(range(len(texts)), key=lengths.__getitem__)
    if lengths[longest] >= most:
        raise UserError(
            f"'{texts[longest][:60]}': {backbone.name} takes {most} tokens, and may have cut it; give a "
            f"shorter template than '{template}', or shorter class names"
        )
