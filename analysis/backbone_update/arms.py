"""What can be done on a new encoder about a program that was fitted on the old one: the rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

import bayes_clip as bc
from analysis.study_tools import scores
from bayes_clip.carried_program import Destination
from bayes_clip.inputs import task_context
from bayes_clip.model import AdapterModel, find_model

ENGINE = "ekf"
MORE = (1, 4)  # labels a class that are new


@dataclass(frozen=True)
class Pair:
    """One task as two encoders see it, row by row the same pictures."""

    old: bc.Task
    new: bc.Task


@dataclass(frozen=True)
class Drawn:
    """The labelled rows of one seed: some that the old encoder learned from, and others that are new."""

    seen_old: bc.Task
    seen_new: bc.Task  # the same pictures, encoded anew
    fresh: dict[int, bc.Task]  # k -> k labels a class on the new encoder, none of them seen before
    both: dict[int, bc.Task]  # k -> the seen and the fresh ones together


def draw(pair: Pair, shots: int, seed: int) -> Drawn:
    """Nested draws: the fresh labels of every class follow its `shots` seen ones in one permutation."""
    fresh, both = {}, {}
    for more in MORE:
        whole = bc.few_shot(pair.new, shots + more, seed)
        place = _place_in_class(whole)
        both[more] = whole
        fresh[more] = replace(whole.with_support(place >= shots), shots=more)
    seen_old, seen_new = bc.few_shot(pair.old, shots, seed), bc.few_shot(pair.new, shots, seed)
    return Drawn(seen_old, seen_new, fresh, both)


def _place_in_class(task: bc.Task) -> torch.Tensor:
    """For each support row, how many of its class come before it."""
    labels = task.support_labels
    same = labels[:, None] == labels
    return torch.tril(same, diagonal=-1).sum(1)


def measure(pair: Pair, model: str, drawn: Drawn) -> Iterator[dict[str, object]]:
    """Accuracy, NLL and ECE of every arm on the new encoder's query set; why not, where it cannot be."""
    kind = find_model(model)
    settings = bc.FitSettings(model=model, engine=ENGINE)
    if kind.engines is not None and ENGINE not in kind.engines:
        settings = replace(settings, engine=kind.engines[-1])
    zero_shot = bc.fit(drawn.seen_new, bc.FitSettings(engine="zero_shot")).posterior
    yield {"arm": "zero-shot", "k": 0, **scores(zero_shot, pair.new)}
    old = bc.fit(drawn.seen_old, settings).posterior
    yield {"arm": "on the old encoder", "k": 0, **scores(old, pair.old)}
    yield {"arm": "unchanged", "k": 0, **_tried(lambda: unchanged(old, kind, pair.new), pair.new)}
    there = Destination("the new encoder", pair.new.backbone, pair.new.text_features, pair.new.logit_scale)
    there = replace(there, encoder=pair.new.encoder)
    # the pictures of the support pool tell how the encoders correspond; their labels are not looked at
    rows = pair.old.support_rows, pair.new.support_rows
    carried: dict[str, bc.Posterior] = {}

    def transported(**options: str) -> bc.Posterior:
        carried["last"] = bc.transport(old, there, *rows, **options).posterior
        return carried["last"]

    if old.logits.program.is_head:
        for name, options in VARIANTS.items():
            yield {"arm": name, "k": 0, **_tried(lambda options=options: transported(**options), pair.new)}
    yield {"arm": "transported", "k": 0, **_tried(transported, pair.new)}
    for more, fresh in drawn.fresh.items():
        if carried:
            learned = bc.update(carried["last"], fresh).posterior
            yield {"arm": "transported", "k": more, **scores(learned, pair.new)}
        again = {"retrained": fresh, "retrained with the old labels too": drawn.both[more]}
        for name, task in again.items():
            yield {"arm": name, "k": more, **scores(bc.fit(task, settings).posterior, pair.new)}


VARIANTS = {
    "transported (procrustes)": {"kind": "procrustes"},
    "transported (plain deviation)": {"what": "deviation"},
}


def unchanged(old: bc.Posterior, kind: type[AdapterModel], task: bc.Task) -> bc.Posterior:
    """The weights as they are, in the same program around the new encoder.

    Raises:
        UserError: they have another shape there.
    """
    context = task_context(kind, task)
    if kind.uses_support:
        kept = old.program.context.support
        assert kept is not None
        if kept.inputs.shape[1] != task.num_features:
            raise bc.UserError(f"a cache of {kept.inputs.shape[1]} features, and {task.num_features} here")
        context = replace(context, support=kept)
    context = replace(context, text_features=context.text_features.to(old.weights.mean))
    program = kind(context, old.program.prior_variance)
    before, after = ({n: tuple(d.shape()) for n, d in of.prior().items()} for of in (old.program, program))
    for name, shape in before.items():
        if shape != after[name]:
            raise bc.UserError(f"its {name} are {_times(shape)} there and {_times(after[name])} here")
    return bc.Posterior(program, old.weights, old.source)


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape)


def _tried(make: Callable[[], bc.Posterior], task: bc.Task) -> dict[str, object]:
    try:
        return dict(scores(make(), task))
    except bc.UserError as error:
        return {"note": str(error)}
