"""From a prediction to what a person reads: one row per input, with a verdict, or a word of caution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayes_clip.errors import UserError
from bayes_clip.evaluation.conformal import PredictionSets
from bayes_clip.evaluation.holdout import FALSE_ALARMS, HeldOut, NoveltyLimit
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.write import write_csv
from bayes_clip.posterior import Posterior
from bayes_clip.predictive import Prediction
from bayes_clip.storage.files import written_whole

VERDICT_COLUMNS = (
    "input",
    "class",
    "probability",
    "epistemic",
    "aleatoric",
    "novelty",
    "verdict",
    "set_size",
    "set",
    "abstained",
)
SEPARATOR = "; "  # between the classes of a set, the most probable one first


@dataclass(frozen=True)
class Verdicts:
    """Rows with VERDICT_COLUMNS (an empty cell where nothing can be said), and how to read them."""

    rows: tuple[dict[str, Cell], ...]
    notes: tuple[str, ...]


def judge(
    prediction: Prediction,
    class_names: Sequence[str],
    inputs: Sequence[str] | None,
    held_out: HeldOut | None,
    risk: float | None = None,
    false_alarms: float = FALSE_ALARMS,
    sets: PredictionSets | None = None,
) -> Verdicts:
    """Class, probability, uncertainties in nats, in/out verdict and whether to abstain, for every input.

    A row is "out" if it is more novel than all but a share `false_alarms` of the support rows were to fits
    that left them out. It is abstained from if its probability is below the least at which at most `risk` of
    those rows were wrong, one wrong answer more than were seen counted in. With `sets` each row names the
    classes that it may belong to, the most probable one first; the predicted class is always among them,
    which makes no set hold the truth less often.

    `inputs` names the rows (file paths); they are numbered from 0 without.

    Raises:
        UserError: abstention is asked for and there was nothing to hold out, or `false_alarms` is no share.
    """
    if risk is not None and held_out is None:
        raise UserError(
            f"--abstain-at {risk:g}: one shot per class leaves none to learn the risk from; fit on two"
        )
    probabilities = prediction.probabilities.double().cpu().numpy()
    winners, confidence = probabilities.argmax(1), probabilities.max(1)
    novelty = prediction.novelty.double().cpu().numpy()
    verdict, abstained = np.full(len(winners), ""), np.full(len(winners), "")
    notes = []
    if held_out is None:
        notes.append(
            "no in/out verdict: one shot per class leaves nothing to compare novelty with; fit on two"
        )
    else:
        bound = held_out.novelty_limit(false_alarms)
        verdict = np.where(novelty > bound.value, "out", "in")
        notes.extend(_how_sure(bound, false_alarms, len(held_out.novelty)))
    if risk is not None and held_out is not None:
        limit = held_out.confidence_limit(risk)
        abstained = np.where(confidence < limit.threshold, "yes", "no")
        notes.append(_how_it_abstains(risk, limit.threshold, limit.coverage, limit.risk))
    sizes, members = _sets(sets, probabilities, class_names)
    notes.extend(() if sets is None else sets.notes)
    columns = (
        inputs or [f"row {index}" for index in range(len(winners))],
        [class_names[index] for index in winners],
        confidence.tolist(),
        prediction.epistemic.double().tolist(),
        prediction.aleatoric.double().tolist(),
        novelty.tolist(),
        verdict.tolist(),
        sizes,
        members,
        abstained.tolist(),
    )
    rows = (dict(zip(VERDICT_COLUMNS, cells, strict=True)) for cells in zip(*columns, strict=True))
    return Verdicts(tuple(rows), tuple(notes))


def save_verdicts(verdicts: Verdicts, path: Path) -> None:
    """Write the rows as CSV, whole or not at all.

    Raises:
        UserError: a place that cannot be written to.
    """
    with written_whole(path) as temporary:
        write_csv(temporary, VERDICT_COLUMNS, verdicts.rows)


def check_backbone(posterior: Posterior, backbone: str | None, what: str) -> None:
    """Refuse features of another encoder than the posterior was fitted with, where both are known.

    Raises:
        UserError: names both fingerprints.
    """
    own = posterior.source.backbone
    if own is not None and backbone is not None and own != backbone:
        raise UserError(
            f"{what}: encoded with backbone {backbone}, and the posterior was fitted with {own}; "
            "give the --backbone and --pretrained that it was fitted with"
        )


def _sets(
    sets: PredictionSets | None, probabilities: np.ndarray, class_names: Sequence[str]
) -> tuple[list[Cell], list[Cell]]:
    """Size and members of every row's set, its predicted class included; empty cells without sets."""
    if sets is None:
        nothing: list[Cell] = [""] * len(probabilities)
        return nothing, nothing
    sizes: list[Cell] = []
    members: list[Cell] = []
    for row, inside in zip(probabilities, sets.members, strict=True):
        inside = inside.copy()
        inside[row.argmax()] = True
        order = [index for index in np.argsort(-row, kind="stable") if inside[index]]
        sizes.append(len(order))
        members.append(SEPARATOR.join(class_names[index] for index in order))
    return sizes, members


def _how_sure(bound: NoveltyLimit, asked: float, rows: int) -> tuple[str, ...]:
    if bound.false_alarms <= asked:
        return ()
    return (
        f"in/out verdicts: {rows} labels are too few for {asked:.1%} of false alarms; these stand for "
        f"{bound.false_alarms:.1%}",
    )


def _how_it_abstains(risk: float, threshold: float, coverage: float, seen: float) -> str:
    if coverage == 0:
        return f"abstains from everything: the support rows show no probability with a risk of {risk:.1%}"
    return (
        f"answers from a probability of {threshold:.3f} on: of the support rows, left out in turn, "
        f"that was {coverage:.0%}, {seen:.1%} of them wrong"
    )
