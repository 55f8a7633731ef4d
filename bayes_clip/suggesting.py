"""Which pictures to label next: those whose labels would say most of the weights, and not all the same thing.

The worth of a label is the mutual information I(y; w) between it and the weights (BALD: Houlsby et al. 2011;
Gal, Islam & Ghahramani 2017): the entropy of the averaged prediction minus the average entropy, over draws of
the row's logits. A batch is chosen greedily. After each pick the belief is conditioned on it, and the next is
worth I(y; w | picks): a near twin of what was picked has little left to say. By the chain rule the sum of
these is the information of the batch (what BatchBALD, Kirsch et al. 2019, estimates jointly).

What is exact: the covariance of a Gaussian update does not depend on the label, only on the site precision.
That is the curvature expected under the prediction, E[diag(p) − p pᵀ] (its diagonal for class blocks), and
each pick is one update of the covariance by the belief's own algebra; the mean stays, as it does on average
over the labels foretold. What is approximate: information is by Monte-Carlo with draws that are fixed by the
row; conditioning is Gaussian; only the rows with most information by themselves are looked at after a pick.

All of it looks at the belief with its covariance times `candidates.SPREAD`. Under the whole of it every row
seems worth the same to a broad prior, which knows nothing of directions that it was not shown, and what it
ranks highest is strange rather than informative: analysis/labels_saved.py. The factor of a tenth was settled
with the query accuracy of digits and DTD in view (development data), so those curves are no independent test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bayes_clip.candidates import Candidates, Narrowed, candidates_of, is_block
from bayes_clip.data.rows import Rows
from bayes_clip.errors import UserError
from bayes_clip.gaussian import FAMILIES
from bayes_clip.gaussian.noise import keys_of
from bayes_clip.memory import WORKING_BYTES, by_rows, rows_within
from bayes_clip.posterior import Posterior
from bayes_clip.precision import full_precision
from bayes_clip.predictive import DRAWN, average_entropy

DRAWS = 128  # of a row's logits
CANDIDATES = 256  # rows that are looked at again after each pick, at least
PER_SUGGESTION = 8  # such rows for each suggestion that is asked for
MOST_GRAM = 2**25  # numbers in the Gram blocks of the candidates

COLUMNS = ("rank", "input", "class", "probability", "information", "alone", "evidence")

WORTHS: dict[str, str] = {
    "information": "mutual information of the label and the weights, given the earlier suggestions",
    "evidence": "expected fall of the log evidence: the entropy of the prediction (uncertainty sampling)",
}


@dataclass(frozen=True)
class Suggestions:
    """k rows of a pool, the one to label first first. Nats are given that the rows before were labelled.

    `evidence` is the expected change of the log evidence by the label, Σ_y p(y) log p(y) = −H: the part that
    `information` does not explain is noise that no label can remove.
    """

    rows: tuple[int, ...]  # of the pool
    predicted: tuple[str, ...]  # class
    probability: tuple[float, ...]  # of that class, as `Posterior.predict` says
    information: tuple[float, ...]  # nats
    alone: tuple[float, ...]  # information without the other suggestions, nats
    evidence: tuple[float, ...]  # nats, at most 0
    notes: tuple[str, ...] = ()

    def table(self, inputs: Sequence[str] | None = None) -> list[dict[str, int | float | str]]:
        """One row with COLUMNS for each, by the names of the pool's `inputs`, else by row number."""
        names = [f"row {row}" if inputs is None else inputs[row] for row in self.rows]
        numbers = (self.predicted, self.probability, self.information, self.alone, self.evidence)
        listed = zip(range(1, len(self) + 1), names, *numbers, strict=True)
        return [dict(zip(COLUMNS, cells, strict=True)) for cells in listed]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Suggestions({len(self)} rows, {sum(self.information):.2f} nats)"


@torch.no_grad()
@full_precision()
def suggest(
    posterior: Posterior,
    rows: Tensor | Rows,
    k: int = 10,
    *,
    by: str = "information",
    novelty_limit: float | None = None,
    budget: int = WORKING_BYTES,
) -> Suggestions:
    """The k rows of a pool (N, F), or of a task or feature file, to label next. See the module.

    With a `novelty_limit` (of what was held out) rows that look unlike any class are left out. A pool of
    fewer rows than k gives all of them.

    Raises:
        UserError: k below one or too many at once, no rows, none that looks like a class, an unknown worth, a
            posterior without a covariance to condition, or inputs that `Posterior.predict` refuses.
    """
    check_request(posterior, k, by)
    if not len(rows):
        raise UserError("the pool is empty; give pictures or features to choose from")
    inputs = posterior.as_inputs(rows)
    usable, notes = torch.arange(len(inputs)), []
    if novelty_limit is not None:
        usable = torch.nonzero(posterior.predict(rows).novelty <= novelty_limit)[:, 0]
        strange = len(inputs) - len(usable)
        if strange:
            notes.append(f"{strange} of {len(inputs)} rows look unlike any class and are not suggested")
        if not len(usable):
            raise UserError(f"all {len(inputs)} rows look unlike any class; to have them: --include-novel")
    if k > len(usable):
        notes.append(f"{k} were asked for and there are {len(usable)}")
    pool = inputs[usable]
    most = _most_candidates(posterior, budget)
    if min(k, len(pool)) > most:
        raise UserError(f"-k {k}: at most {most} at once with so many classes; label these, then ask again")
    first = _worth_of_all(posterior, pool, by, budget).cpu()
    looked_at = min(max(CANDIDATES, PER_SUGGESTION * k), most, len(pool))
    short = first.topk(looked_at).indices.sort().values
    found = greedy(candidates_of(posterior, pool[short]), keys_of(pool[short]), min(k, len(pool)), by)
    picked = usable[short[torch.tensor([pick.index for pick in found])]]
    suggested = rows.pick(picked) if isinstance(rows, Rows) else rows[picked]
    chance, winner = posterior.predict(suggested).probabilities.max(-1)
    return Suggestions(
        rows=tuple(picked.tolist()),
        predicted=tuple(posterior.class_names[index] for index in winner.tolist()),
        probability=tuple(chance.tolist()),
        information=tuple(pick.information for pick in found),
        alone=tuple(pick.alone for pick in found),
        evidence=tuple(-pick.entropy for pick in found),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class Pick:
    """One candidate as it was when it was picked."""

    index: int
    information: float  # nats
    alone: float
    entropy: float  # of the averaged prediction


def greedy(candidates: Candidates, keys: Tensor, k: int, by: str = "information") -> list[Pick]:
    """The k best candidates one after another, each given those before. `keys` (n,) fix the rows' draws."""
    found: list[Pick] = []
    alone: Tensor | None = None
    taken = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    for place in range(k):
        aleatoric, information = average_entropy(Narrowed(candidates.logits()), keys, DRAWS)
        entropy = aleatoric + information
        alone = information if alone is None else alone
        worth = information if by == "information" else entropy
        index = int(worth.masked_fill(taken, -torch.inf).argmax())
        taken[index] = True
        found.append(Pick(index, float(information[index]), float(alone[index]), float(entropy[index])))
        if place + 1 < k:
            candidates = candidates.given(index)
    return found


def _worth_of_all(posterior: Posterior, inputs: Tensor, by: str, budget: int) -> Tensor:
    """What each input (N, F) is worth by itself, (N,)."""

    def worth(part: Tensor) -> tuple[Tensor]:
        logits = Narrowed(posterior.logits.predicted_logits(part))
        aleatoric, information = average_entropy(logits, keys_of(part), DRAWS, budget)
        return (information if by == "information" else aleatoric + information,)

    return by_rows(worth, inputs, rows_within(budget, _row_bytes(posterior)))[0]


def _most_candidates(posterior: Posterior, budget: int) -> int:
    """Rows n for which C blocks (n, n) stay small; of other beliefs, for which their predictions do."""
    if is_block(posterior):
        return int((MOST_GRAM / len(posterior.class_names)) ** 0.5)
    return rows_within(budget, _row_bytes(posterior))


def _row_bytes(posterior: Posterior) -> int:
    numbers = posterior.logits.row_numbers + DRAWN * len(posterior.class_names)
    return posterior.weights.mean.element_size() * numbers


def check_request(posterior: Posterior, k: int, by: str = "information") -> None:
    """Refuse, before any work, what cannot be suggested.

    Raises:
        UserError: k below one, an unknown worth, or a posterior without a covariance to condition.
    """
    if k < 1:
        raise UserError(f"-k {k}: give the number of pictures to suggest, at least 1")
    if by not in WORTHS:
        raise UserError(f"--by {by}: no such worth; known: {', '.join(WORTHS)}")
    if not isinstance(posterior.weights, tuple(FAMILIES.values())):
        engine = posterior.source.settings.engine
        raise UserError(
            f"{engine}: its posterior has no covariance that a label would change; fit with --engine ekf"
        )
