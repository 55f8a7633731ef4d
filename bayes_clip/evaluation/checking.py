"""`bayes-clip check`: every engine, covariance and rule asked for, held against its own claims."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError, nearest
from bayes_clip.evaluation.consistency import Consistency
from bayes_clip.evaluation.filter_checks import gaussian_consistency, label_consistency
from bayes_clip.evaluation.pareto import threshold
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.simulated import small_task
from bayes_clip.evaluation.simulation_based import UNCHECKED, Calibration, calibrate, require_enough
from bayes_clip.evaluation.uniformity import PASSES
from bayes_clip.inference import ENGINE_COVARIANCES, ENGINES
from bayes_clip.inference.rules import DEFAULT_RULE, OTHER_RULES, RULES
from bayes_clip.model import find_model
from bayes_clip.progress import track
from bayes_clip.settings import FitSettings

REGIMES = (1.0, 10.0, 100.0)  # prior variances of a logit
DEFAULT_CHECKED = ("ekf", "laplace")  # of seconds; a vi fit takes one, a nuts fit tens of them
SIMULATIONS = 100
BATCH_SIZE = 6  # five updates of the default task: a filter is checked as one

COLUMNS = (
    *("model", "engine", "covariance", "rule", "prior_logit_variance", "simulations", "seed", "verdict"),
    *("calibration", "calibration_p", "worst", "width_needed", "coverage_50", "coverage_80", "coverage_95"),
    *("pareto_k", "pareto_k_above"),
    *("labels", "labels_nis_ratio", "labels_nis_p", "labels_transform_p", "labels_whiteness"),
    *("numbers", "numbers_nis_ratio", "numbers_nis_p", "numbers_transform_p", "numbers_whiteness"),
)


@dataclass(frozen=True)
class Arm:
    """One way to a posterior: an engine with its covariance and rule ('' where it has none)."""

    model: str
    engine: str
    covariance: str
    rule: str

    @property
    def label(self) -> str:
        """Engine, covariance and rule, as far as there are any."""
        return " · ".join(part for part in (self.engine, self.covariance, self.rule) if part)

    @property
    def settings(self) -> FitSettings:
        """The settings that fit it."""
        return FitSettings(
            model=self.model,
            engine=self.engine,
            covariance=self.covariance or None,
            rule=self.rule or None,
            batch_size=BATCH_SIZE,
        )


@dataclass(frozen=True)
class Check:
    """One arm at one prior variance of a logit: its calibration, and for a filter its innovations."""

    arm: Arm
    prior_logit_variance: float
    seed: int
    calibration: Calibration
    labels: Consistency | None = None  # of the filter, on labels
    numbers: Consistency | None = None  # of the filter, on Gaussian observations

    @property
    def verdict(self) -> str:
        """That of the calibration, or where it passes that of the filter's innovations on labels.

        The innovations on numbers check the covariance's algebra and have a column of their own; Pareto-k̂
        says whether draws can be reweighted, which a posterior need not allow to be calibrated.
        """
        if self.calibration.verdict != PASSES or self.labels is None:
            return self.calibration.verdict
        return self.labels.verdict

    @property
    def row(self) -> dict[str, Cell]:
        """The COLUMNS of check.csv; empty strings where a column does not apply."""
        own = self.calibration
        worst = min(range(len(own.checks)), key=lambda index: own.checks[index].p_value)
        return {
            **vars(self.arm),
            "prior_logit_variance": self.prior_logit_variance,
            "simulations": len(own.ranks),
            "seed": self.seed,
            "verdict": self.verdict,
            "calibration": own.verdict,
            "calibration_p": own.p_value,
            "worst": own.names[worst],
            "width_needed": own.width_needed,
            **{f"coverage_{round(100 * each.level)}": each.share for each in own.coverage},
            "pareto_k": "" if own.pareto_k is None else own.pareto_k,
            "pareto_k_above": "" if own.pareto_share is None else own.pareto_share,
            **_innovations("labels", self.labels),
            **_innovations("numbers", self.numbers),
        }

    def __repr__(self) -> str:
        return f"Check({self.arm.label} at s²v = {self.prior_logit_variance:g}: {self.verdict})"


@dataclass(frozen=True)
class CheckReport:
    """All checks, and what the user should be told."""

    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    config: dict[str, Any]

    def __repr__(self) -> str:
        failing = sum(check.verdict != PASSES for check in self.checks)
        return f"CheckReport({len(self.checks)} checks, {failing} failing)"


def check(
    engines: Sequence[str] = DEFAULT_CHECKED,
    *,
    model: str = "linear_probe",
    covariances: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    prior_logit_variances: Sequence[float] = REGIMES,
    simulations: int = SIMULATIONS,
    seed: int = 0,
    task: Task | None = None,
) -> CheckReport:
    """Check engines on data drawn from the model program's own prior, one prior variance after another.

    `covariances` and `rules`: None is each engine's default, ``all`` every one it has. The default `task`
    has 3 classes, 3 features and 30 rows. A combination that cannot be fitted is left out with a note.

    Raises:
        UserError: an unknown name, fewer than 20 simulations, or a prior variance that is not positive.
    """
    require_enough(simulations)
    for value in prior_logit_variances:
        if not 0 < value < float("inf"):
            raise UserError(f"--prior-logit-variance {value:g}: must be a positive number, such as 10")
    find_model(model)
    task = task or small_task()
    engines = list(ENGINES) if "all" in engines else list(dict.fromkeys(engines))
    arms, notes = arms_of(engines, model, covariances, rules)
    checks: list[Check] = []
    cells = [(arm, value) for arm in arms for value in prior_logit_variances]
    for arm, value in track(cells, "Checking"):
        if f"{arm.label} is left out" in " ".join(notes):
            continue
        try:
            checks.append(check_arm(arm, value, simulations, seed, task))
        except UserError as error:
            notes.append(f"{arm.label} is left out: {error}")
    config = {
        "model": model,
        "engines": engines,
        "prior_logit_variances": list(prior_logit_variances),
        "simulations": simulations,
        "seed": seed,
        "task": repr(task),
        "batch_size": BATCH_SIZE,
        "pareto_k_threshold": threshold(),
    }
    return CheckReport(tuple(checks), tuple(notes), config)


def check_arm(arm: Arm, prior_logit_variance: float, simulations: int, seed: int, task: Task) -> Check:
    """One arm at one prior variance of a logit."""
    case = (task, arm.settings, prior_logit_variance, simulations, seed)
    found = Check(arm, prior_logit_variance, seed, calibrate(*case))
    if arm.engine != "ekf":
        return found
    streams = (task, arm.settings, prior_logit_variance, max(1, simulations // 2), seed)  # of five batches
    found = replace(found, labels=label_consistency(*streams))
    # rules of their own observation, such as the published recipe, know nothing of numbers on logits
    return replace(found, numbers=gaussian_consistency(*streams)) if arm.rule in RULES else found


def arms_of(
    engines: Iterable[str], model: str, covariances: Sequence[str] | None, rules: Sequence[str] | None
) -> tuple[list[Arm], list[str]]:
    """The arms asked for, and remarks on engines that have nothing to check.

    Raises:
        UserError: a name that no engine knows.
    """
    offered = {name for names in ENGINE_COVARIANCES.values() for name in names}
    _check_known(engines, ENGINES, "--engines")
    _check_known(covariances or (), [*offered, "all"], "--covariance")
    _check_known(rules or (), [*RULES, *OTHER_RULES, "all"], "--rule")
    arms, notes = [], []
    for engine in engines:
        if engine in UNCHECKED:
            notes.append(f"{engine} is a point without doubt: there is nothing to check")
            continue
        for covariance in _chosen(covariances, ENGINE_COVARIANCES[engine]):
            for rule in _chosen(rules, _rules_of(engine)):
                arms.append(Arm(model, engine, covariance, rule))
    return arms, notes


def _rules_of(engine: str) -> tuple[str, ...]:
    """Update rules of an engine, the default first."""
    if engine != "ekf":
        return ()
    return (DEFAULT_RULE, *(name for name in (*RULES, *OTHER_RULES) if name != DEFAULT_RULE))


def _chosen(asked: Sequence[str] | None, offered: Sequence[str]) -> list[str]:
    """What of `offered` was asked for; the first (its default) where nothing fits, '' where there is none."""
    if not offered:
        return [""]
    if asked is not None and "all" in asked:
        return list(offered)
    return [name for name in offered if name in (asked or ())] or [offered[0]]


def _check_known(names: Iterable[str], known: Iterable[str], option: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            what = option.removeprefix("--").removesuffix("s")
            raise UserError(
                f"{option} {name}: no such {what}.{nearest(name, known)} Known: {', '.join(sorted(known))}"
            )


def _innovations(prefix: str, found: Consistency | None) -> dict[str, Cell]:
    if found is None:
        names = ("", "_nis_ratio", "_nis_p", "_transform_p", "_whiteness")
        return {f"{prefix}{name}": "" for name in names}
    return {
        prefix: found.verdict,
        f"{prefix}_nis_ratio": float(np.clip(found.nis_ratio, 0, 1e12)),
        f"{prefix}_nis_p": found.nis.p_value,
        f"{prefix}_transform_p": found.transforms.p_value,
        f"{prefix}_whiteness": found.whiteness,
    }
