"""From a prediction to what a person reads: one row per input, with a verdict, or a word of caution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import HeldOut
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
    "abstained",
)


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
) -> Verdicts:
    """Class, probability, uncertainties in nats, in/out verdict and whether to abstain, for every input.

    A row is "out" if it is more novel than 95 % of the support rows were to fits that left them out. It is
    abstained from if its probability is below the least at which at most `risk` of those rows were wrong.

    `inputs` names the rows (file paths); they are numbered from 0 without.

    Raises:
        UserError: abstention is asked for and there was nothing to hold out.
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
        verdict = np.where(novelty > held_out.novelty_limit, "out", "in")
    if risk is not None and held_out is not None:
        limit = held_out.confidence_limit(risk)
        abstained = np.where(confidence < limit.threshold, "yes", "no")
        notes.append(_how_it_abstains(risk, limit.threshold, limit.coverage, limit.risk))
    columns = (
        inputs or [f"row {index}" for index in range(len(winners))],
        [class_names[index] for index in winners],
        confidence.tolist(),
        prediction.epistemic.double().tolist(),
        prediction.aleatoric.double().tolist(),
        novelty.tolist(),
        verdict.tolist(),
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


def _how_it_abstains(risk: float, threshold: float, coverage: float, seen: float) -> str:
    if coverage == 0:
        return f"abstains from everything: at no probability were as few as {risk:.1%} of support rows wrong"
    return (
        f"answers from a probability of {threshold:.3f} on: of the support rows, left out in turn, "
        f"that was {coverage:.0%}, {seen:.1%} of them wrong"
    )
