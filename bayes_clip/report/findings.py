"""What each figure shows, in a sentence or two: computed from the data that is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bayes_clip.evaluation.metrics import auroc, fpr_at_95_tpr
from bayes_clip.evaluation.reliability import Reliability
from bayes_clip.evaluation.selective import RiskCoverage
from bayes_clip.report.tradeoff_plots import beaten_by
from bayes_clip.report.uncertainty_plots import Doubt
from bayes_clip.report.words import NEAR_FLOOR, joined

MOST_NAMED = 5  # of a list; the rest is counted
CLEAR = 0.02  # of an AUROC: less is not worth telling apart


def of_engines(means: Mapping[str, Mapping[str, float]]) -> str:
    """`means`: accuracy, nll, ece -> label -> mean."""
    words = {"accuracy": "the highest accuracy", "nll": "the lowest NLL", "ece": "the lowest ECE"}
    firsts: dict[str, list[str]] = {}
    for metric, title in words.items():
        found = means[metric]
        best = max(found, key=lambda label: found[label] if metric == "accuracy" else -found[label])
        firsts.setdefault(best, []).append(f"{title} ({found[best]:.3f})")
    return _capital(joined([f"{label} has {joined(said)}" for label, said in firsts.items()]) + ".")


def of_shots(curves: Mapping[str, Mapping[int, float]], label: str) -> str:
    """`curves`: label -> images per class -> mean NLL; `label`: the arm to speak of."""
    shots = sorted({count for points in curves.values() for count in points})
    first, last = (_lowest(curves, at) for at in (shots[0], shots[-1]))
    own = curves[label]
    ends = min(own), max(own)
    moves = "falls" if own[ends[1]] < own[ends[0]] else "rises"
    lowest = (
        f"{first} has the lowest NLL at both ends"
        if first == last
        else f"the lowest NLL is that of {first} at {shots[0]}, and of {last} at {shots[-1]}"
    )
    return (
        f"From {ends[0]} to {ends[1]} images per class the NLL of {label} {moves} from {own[ends[0]]:.3f} "
        f"to {own[ends[1]]:.3f}; {lowest}."
    )


def of_reliability(found: Mapping[str, Reliability]) -> str:
    """Which can be taken at their word, and which claim too much or too little."""
    honest: list[str] = []
    bold: list[str] = []
    shy: list[str] = []
    for label, one in found.items():
        filled = one.counts > 0
        excess = float(
            (one.counts[filled] * (one.confidence[filled] - one.accuracy[filled])).sum() / one.counts.sum()
        )
        if one.ece < NEAR_FLOOR * one.ece_if_calibrated:
            honest.append(label)
        else:
            (bold if excess > 0 else shy).append(f"{label} (by {abs(excess) * 100:.1f} points)")
    parts = []
    if honest:
        parts.append(f"{listed(honest)} can be taken at {'its' if len(honest) == 1 else 'their'} word")
    if bold:
        parts.append(f"too sure on the whole: {listed(bold)}")
    if shy:
        parts.append(f"not sure enough: {listed(shy)}")
    return _capital("; ".join(parts) + ".")


def of_classes(found: Mapping[str, Reliability]) -> str:
    """How many classes are calibrated as far as can be told, and which is the worst."""
    fine = [name for name, one in found.items() if one.ece < NEAR_FLOOR * one.ece_if_calibrated]
    worst = max(found, key=lambda name: found[name].ece - found[name].ece_if_calibrated)
    said = f"{len(fine)} of the {len(found)} classes shown are as calibrated as can be told from so few rows."
    if len(fine) == len(found):
        return said
    one = found[worst]
    return (
        f"{said} The furthest from its word is {worst}: its probability misses the share of its rows by "
        f"{one.ece:.3f}, where a calibrated model would seem to miss by {one.ece_if_calibrated:.3f}."
    )


def of_silence(curves: Mapping[str, RiskCoverage]) -> str:
    """Who errs least on the surest half, and what its order costs against the best one."""
    half = {label: float(curve.risk[max(len(curve.risk) // 2 - 1, 0)]) for label, curve in curves.items()}
    best = min(half, key=lambda label: half[label])
    curve = curves[best]
    return (
        f"Of the half of the images it is surest of, {best} names {half[best]:.1%} wrong, of all of them "
        f"{curve.random:.1%}; averaged over all shares that is {curve.excess_aurc:.3f} above the best order."
    )


def of_doubts(doubts: Mapping[str, Doubt]) -> str:
    """Whether epistemic doubt or low confidence finds errors better."""
    parts = []
    for label, doubt in doubts.items():
        epistemic, confidence = doubt.finds_errors
        if np.isnan(epistemic):
            parts.append(f"{label} makes no errors to find")
        elif abs(epistemic - confidence) < CLEAR:
            parts.append(f"for {label} both doubts find errors equally well ({epistemic:.2f})")
        else:
            better, worse = ("epistemic doubt", "low confidence")[:: 1 if epistemic > confidence else -1]
            high, low = max(epistemic, confidence), min(epistemic, confidence)
            parts.append(
                f"for {label} {better} finds errors better than {worse} ({high:.2f} against {low:.2f})"
            )
    return _capital("; ".join(parts) + ".")


def of_novelty(inside: Mapping[str, np.ndarray], outside: Mapping[str, np.ndarray]) -> str:
    """Who tells strangers best, and how many a useful threshold keeps out."""
    found = {label: auroc(inside[label], outside[label]) for label in inside}
    best = max(found, key=lambda label: found[label])
    how = "outside images best" if len(found) > 1 else "outside images"
    caught = 1 - fpr_at_95_tpr(inside[best], outside[best])
    said = (
        f"{best} tells {how} from test images (AUROC {found[best]:.3f}): a threshold that lets in 95% of "
        f"test images keeps out {caught:.1%} of the others"
    )
    blind = [label for label, value in found.items() if value < 0.5 + CLEAR]
    return _capital(said + (f"; no better than guessing: {listed(blind)}." if blind else "."))


def of_tradeoff(points: Mapping[str, Mapping[str, float]]) -> str:
    """Which arms are worth their time, and which never are."""
    beaten = beaten_by(points)
    front = [label for label in points if label not in beaten]
    said = f"No other engine is better in NLL, ECE and seconds at once than {listed(front)}"
    if not beaten:
        return said + ": each has something to offer."
    return said + f". Beaten in all three: {listed([f'{a} (by {b[0]})' for a, b in beaten.items()])}."


def of_pictures(surest: Sequence[bool], least_sure: Sequence[bool]) -> str:
    """Whether each picture of the two rows was named right."""
    return (
        f"Of the {len(surest)} it is surest of, {_count(len(surest) - sum(surest))} wrong; of the "
        f"{len(least_sure)} it is least sure of, {_count(len(least_sure) - sum(least_sure))}."
    )


def _lowest(curves: Mapping[str, Mapping[int, float]], at: int) -> str:
    """The label with the lowest value at `at`."""
    there = {label: points[at] for label, points in curves.items() if at in points}
    return min(there, key=lambda label: there[label])


def _count(wrong: int) -> str:
    return {0: "none is", 1: "one is"}.get(wrong, f"{wrong} are")


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    shown = list(names[:MOST_NAMED])
    rest = len(names) - len(shown)
    return joined([*shown, f"{rest} more"] if rest else shown)


def _capital(sentence: str) -> str:
    """The sentence as it is: it may begin with the name of an engine, which has no capital."""
    words = ("for ", "too ", "not ")
    return sentence[0].upper() + sentence[1:] if sentence.startswith(words) else sentence
