"""Which labels of a support set look wrong, from the labels and pictures of the support set alone.

Every row is predicted by the linear probe's mode without the fold it is in (up to eight balanced folds), so
that no label vouches for itself. With p_i the probability of row i's given label there, labels are taken to
be right but for a share ε, which are replaced by any other class with the same chance:

    P(given label | picture) = (1 − ε) p_i + ε (1 − p_i) / (C − 1).

ε is the value that makes the given labels most probable (expectation maximisation, from 0.1); row i is wrong
with probability ε (1 − p_i) / (C − 1) over the above, and is a suspect where that is more than a half. The
model is that of Natarajan et al. (NeurIPS 2013) for random label noise, its rate learned as by Raykar et al.
(JMLR 2010). Where classes look alike, p_i is small for right labels too and ε comes out near zero: it flags
few. Where zero-shot CLIP fails and labels are few, the fits are sure of what is not so, and right labels are
flagged (analysis/label_noise.py measures how many of each).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bayes_clip.data.task import Task
from bayes_clip.evaluation.results import Cell
from bayes_clip.fitting import left_out_logits
from bayes_clip.settings import FitSettings

FIRST_SHARE = 0.1
MOST_ROUNDS = 1000
SETTLED = 1e-9  # change of the share, below which it stands
LIMIT = 0.5  # probability that a label is wrong, above which it is a suspect
MOST_NUMBERS = 2**31  # N C D: more takes minutes, and the labels are not looked at unless asked for
NAMED = 3  # suspects that a note names
SUSPECT_COLUMNS = ("row", "input", "given", "suggested", "probability", "wrong")


@dataclass(frozen=True)
class LabelDoubts:
    """What left-out predictions say of N labels; float64.

    Rows of a class with no other row and no text are not judged: `probability` is NaN there and `wrong` 0.
    """

    probability: np.ndarray  # (N,) of the given label, its row's fold left out
    suggested: np.ndarray  # (N,) the most probable class there
    wrong: np.ndarray  # (N,) probability that the given label is wrong
    share: float  # ε

    @property
    def suspects(self) -> np.ndarray:
        """Rows whose label is more likely wrong than right, the likeliest first."""
        rows = np.flatnonzero(self.wrong > LIMIT)
        return rows[np.argsort(-self.wrong[rows], kind="stable")]


def doubt_labels(task: Task, seed: int = 0, device: str = "cpu") -> LabelDoubts | None:
    """Judge every support label; None where every class has a single row, so that none can be left out."""
    logits = left_out_logits(task, FitSettings(engine="map", seed=seed, device=device))
    if logits is None:
        return None
    labels = task.support_labels.cpu()
    probabilities = logits.softmax(-1)
    given = probabilities.gather(1, labels[:, None])[:, 0].numpy()
    judged = np.ones(len(labels), dtype=bool)
    if task.text_features is None:
        judged = (torch.bincount(labels)[labels] > 1).numpy()
    wrong, share = wrongness(given[judged], task.num_classes)
    everywhere = np.zeros(len(labels))
    everywhere[judged] = wrong
    return LabelDoubts(np.where(judged, given, np.nan), probabilities.argmax(-1).numpy(), everywhere, share)


def wrongness(given: np.ndarray, classes: int) -> tuple[np.ndarray, float]:
    """Probability (N,) that each label is wrong, from those of the given labels (N,), and the share ε."""
    other = (1 - given) / (classes - 1)
    share = FIRST_SHARE
    wrong = np.zeros_like(given)
    for _ in range(MOST_ROUNDS):
        swapped, right = share * other, (1 - share) * given
        total = swapped + right
        wrong = np.divide(swapped, total, out=np.zeros_like(given), where=total > 0)
        before, share = share, float(wrong.mean()) if len(wrong) else 0.0
        if abs(share - before) < SETTLED:
            break
    return wrong, share


def is_quick(task: Task) -> bool:
    """Whether `doubt_labels` takes little beside a fit."""
    return len(task.support_labels) * task.num_classes * task.num_features <= MOST_NUMBERS


def suspect_rows(task: Task, doubts: LabelDoubts) -> list[dict[str, Cell]]:
    """SUSPECT_COLUMNS of every suspect: its row in the support set, its path where known, and the numbers."""
    names = None if task.support_pictures is None else task.support_pictures.names
    return [
        {
            "row": row,
            "input": "" if names is None else names[row],
            "given": task.class_names[int(task.support_labels[row])],
            "suggested": task.class_names[int(doubts.suggested[row])],
            "probability": float(doubts.probability[row]),
            "wrong": float(doubts.wrong[row]),
        }
        for row in doubts.suspects.tolist()
    ]


def remark(task: Task, rows: Sequence[dict[str, Cell]]) -> tuple[str, ...]:
    """One line on the labels that look wrong; none where none does."""
    if not rows:
        return ()
    first = ", ".join(
        f"{row['input'] or 'row ' + str(row['row'])} given '{row['given']}' looks like '{row['suggested']}'"
        for row in rows[:NAMED]
    )
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    count = f"{len(rows)} of {len(task.support_labels)} labels may be wrong"
    return (f"{count}, by fits that did not see them: {first}{more}; --report lists them",)
