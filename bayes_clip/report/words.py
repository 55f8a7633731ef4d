"""What the numbers say, in words: computed, and just as plain when the featured engine loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayes_clip.evaluation.metrics import confidence_and_correct, nll_of_rows
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.results import Run, mean_and_standard_error
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.report.arms import REFERENCE_ENGINE, Setting, featured, shots_in_words
from bayes_clip.report.style import engine_of

TITLES = {
    "ekf": "The Kalman filter",
    "laplace": "The Laplace approximation",
    "vi": "Variational inference",
    "nuts": "Sampling (nuts)",
    "sgd": "Training as published (sgd)",
    "map": "The most plausible weights (map)",
}
NEAR_FLOOR = 1.3  # times the ECE of a calibrated model: not worth telling apart


@dataclass(frozen=True)
class Verdict:
    """One setting in a few sentences, each of which stands for itself."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Mean of (ours - theirs) on the same draws and the same test images, and its 95 % half width.

    The half width covers both the choice of the test images and, with two seeds or more, the draw of the
    labelled ones; with one seed nothing is known of the latter.
    """

    mean: float
    half_width: float

    @property
    def clear(self) -> bool:
        """Whether zero lies outside the interval."""
        return abs(self.mean) > self.half_width


def headline(settings: Sequence[Setting]) -> str:
    """The report in one sentence: where the featured engine's probabilities are the best, and where not."""
    ours = featured(settings[-1])
    named = TITLES.get(ours, f"The engine {ours}")
    contests = [setting for setting in settings if ours in setting.arms and len(setting.arms) > 1]
    if not contests:
        return f"{named}, measured"
    gaps = [
        {label: difference(one, ours, label, "nll") for label in one.arms if label != ours}
        for one in contests
    ]
    ahead = sum(all(gap.clear and gap.mean < 0 for gap in of_setting.values()) for of_setting in gaps)
    beaten = [any(gap.clear and gap.mean > 0 for gap in of_setting.values()) for of_setting in gaps]
    winners = list(
        dict.fromkeys(best(one, "nll") for one, lost in zip(contests, beaten, strict=True) if lost)
    )
    total = len(contests)
    one_each = len({setting.task for setting in contests}) == total
    where = f"on {joined([setting.task for setting in contests])}" if one_each else "in every setting"
    if ahead == total:
        return f"{named} gives the best probabilities {where}"
    if not any(beaten):
        where = where.replace("every", "any")
        return f"No engine gives clearly better probabilities than {named[0].lower()}{named[1:]} {where}"
    if all(beaten):
        return f"{named} does not give the best probabilities {where}: {joined(winners)} did better"
    count = f"{total - sum(beaten)} of {total} settings"
    return f"{named} is best or level with the best in {count}; elsewhere {joined(winners)} did better"


def verdict(setting: Setting) -> Verdict:
    """The featured engine in one setting: accuracy, log-loss, calibration, silence, strangers."""
    ours = featured(setting)
    sentences = (
        _accuracy(setting, ours),
        _log_loss(setting, ours),
        _calibration(setting, ours),
        _silence(setting.arms[ours]),
        _strangers(setting, ours),
    )
    return Verdict(setting.name, tuple(sentence for sentence in sentences if sentence))


def best(setting: Setting, metric: str, largest: bool = False) -> str:
    """Label with the best mean over seeds."""
    means = {label: mean_and_standard_error(values)[0] for label, values in setting.values(metric).items()}
    numbers = {label: float(mean) for label, mean in means.items() if not isinstance(mean, str)}
    return max(numbers, key=lambda label: numbers[label] if largest else -numbers[label])


def difference(setting: Setting, ours: str, theirs: str, metric: str) -> Difference:
    """Compare two arms on "nll" or "accuracy", row by row, on the seeds both ran on."""
    left = {run.row.get("seed", 0): _by_row(run, metric) for run in setting.arms[ours]}
    right = {run.row.get("seed", 0): _by_row(run, metric) for run in setting.arms[theirs]}
    gaps = np.stack([left[seed] - right[seed] for seed in left if seed in right])  # (seeds, M)
    seeds, rows = gaps.shape
    variance = gaps.mean(axis=0).var() / rows
    if seeds > 1:
        variance += gaps.mean(axis=1).var(ddof=1) / seeds
    return Difference(float(gaps.mean()), float(1.96 * np.sqrt(variance)))


def _by_row(run: Run, metric: str) -> np.ndarray:
    """The metric of every test image, (M,)."""
    if metric == "accuracy":
        return confidence_and_correct(run.probabilities, run.labels)[1]
    return nll_of_rows(run.probabilities, run.labels)


def _accuracy(setting: Setting, ours: str) -> str:
    rows = setting.arms[ours][0].row["n_query"]
    sentence = (
        f"With {shots_in_words(setting.shots)}, {ours} names the right class of "
        f"{_mean(setting, ours, 'accuracy'):.1%} of {rows:,} test images"
    )
    reference = _reference(setting)
    if reference is None or reference == ours:
        return sentence + "."
    gap = difference(setting, ours, reference, "accuracy")
    how = "no clear difference" if not gap.clear else "a gain" if gap.mean > 0 else "a loss"
    points = f" of {abs(gap.mean) * 100:.1f} points" if gap.clear else ""
    was = f"{_mean(setting, reference, 'accuracy'):.1%}"
    return f"{sentence}; without any labels ({reference}) it is {was}, {how}{points}."


def _log_loss(setting: Setting, ours: str) -> str:
    found = _mean(setting, ours, "nll")
    winner = best(setting, "nll")
    others = [label for label in setting.arms if label != ours]
    if not others:
        return f"Its log-loss (NLL) is {found:.3f} nats."
    if winner == ours:
        second = min(others, key=lambda label: _mean(setting, label, "nll"))
        gap = difference(setting, ours, second, "nll")
        what = "clearly ahead of" if gap.clear else "though not clearly ahead of"
        return f"Its log-loss (NLL), {found:.3f} nats, is the lowest, {what} {second}{_margin(gap)}."
    gap = difference(setting, ours, winner, "nll")
    what = "clearly lower" if gap.clear else "lower, but not clearly so"
    return (
        f"Its log-loss (NLL) is {found:.3f} nats; that of {winner}, {_mean(setting, winner, 'nll'):.3f}, is "
        f"{what}{_margin(gap)}."
    )


def _calibration(setting: Setting, ours: str) -> str:
    pairs = [confidence_and_correct(run.probabilities, run.labels) for run in setting.arms[ours]]
    floor = float(np.mean([reliability(*pair).ece_if_calibrated for pair in pairs]))
    excess = 100 * float(np.mean([confidence.mean() - correct.mean() for confidence, correct in pairs]))
    found = _mean(setting, ours, "ece")
    sentence = (
        f"Its confidence misses its accuracy by {100 * found:.1f} points on average (ECE); "
        f"a perfectly calibrated model would seem to miss by {100 * floor:.1f}"
    )
    if found < NEAR_FLOOR * floor:
        return sentence + ", so there is little to complain of."
    tendency = "much" if excess > 0 else "little"
    return f"{sentence}. On the whole it claims {abs(excess):.1f} points too {tendency}."


def _silence(runs: Sequence[Run]) -> str:
    curves = [risk_coverage(*confidence_and_correct(run.probabilities, run.labels)) for run in runs]
    half = np.mean([curve.risk[len(curve.risk) // 2 - 1] for curve in curves])
    everything = np.mean([curve.random for curve in curves])
    return (
        f"Answering only the half it is surest of, it errs on {half:.1%} of them; on all, {everything:.1%}."
    )


def _strangers(setting: Setting, ours: str) -> str:
    if isinstance(setting.arms[ours][0].row.get("ood_auroc", ""), str):
        return ""
    return (
        "Shown an image from outside and a test image, it finds the outsider more novel in "
        f"{_mean(setting, ours, 'ood_auroc'):.1%} of pairs (OOD AUROC; guessing gives 50%)."
    )


def _reference(setting: Setting) -> str | None:
    return next((label for label in setting.arms if engine_of(label) == REFERENCE_ENGINE), None)


def _mean(setting: Setting, label: str, metric: str) -> float:
    return float(np.mean([float(run.row[metric]) for run in setting.arms[label]]))


def _margin(gap: Difference) -> str:
    return f" (by {abs(gap.mean):.3f} ± {gap.half_width:.3f})"


def joined(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
