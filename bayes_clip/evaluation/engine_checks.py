"""What every engine's own check once said: the measured table that `compare` reads its `self_check` from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bayes_clip.evaluation.uniformity import PASSES
from bayes_clip.inference import ENGINE_COVARIANCES
from bayes_clip.settings import FitSettings

RECORD = Path(__file__).with_name("engine_checks.json")
UNKNOWN = "unchecked"
NEAR = 5.0  # a run's prior variance of a logit lies within this factor of a recorded one


@dataclass(frozen=True)
class SelfCheck:
    """What the record says of one run: a verdict, and the prior variance of a logit it was measured at."""

    verdict: str
    prior_logit_variance: float | None = None

    @property
    def fails(self) -> bool:
        """Whether the engine failed its own check there."""
        return self.verdict not in ("", PASSES, UNKNOWN)


def self_check(settings: FitSettings, prior_logit_variance: float) -> SelfCheck:
    """The recorded verdict nearest to a run with these settings, whose logits had that prior variance s² v.

    Empty for points, which claim no doubt; `unchecked` where no such combination was recorded, its prior
    variance is more than a factor of 5 away, or the run had dynamics or several passes, which no record has.
    """
    if settings.engine != "nuts" and not ENGINE_COVARIANCES[settings.engine]:
        return SelfCheck("")
    rule = settings.update_rule if settings.engine == "ekf" else ""
    if settings.engine == "ekf" and (settings.passes > 1 or not settings.state_space.is_static):
        return SelfCheck(UNKNOWN)
    recorded = _record().get((settings.model, settings.engine, settings.family, rule), {})
    if not recorded:
        return SelfCheck(UNKNOWN)
    closest = min(recorded, key=lambda value: abs(math.log(value / prior_logit_variance)))
    if abs(math.log(closest / prior_logit_variance)) > math.log(NEAR):
        return SelfCheck(UNKNOWN)
    return SelfCheck(recorded[closest], closest)


def remark(settings: FitSettings, found: SelfCheck) -> str:
    """One line for the person about a failing engine, which names the regime."""
    parts = (settings.engine, settings.family, settings.update_rule if settings.engine == "ekf" else "")
    name = " · ".join(part for part in parts if part)
    return (
        f"{name} fails its own check at a prior logit variance of {found.prior_logit_variance:g}: "
        f"{found.verdict} (bayes-clip check says how)"
    )


def write_record(rows: list[dict[str, Any]], path: Path = RECORD) -> None:
    """Keep the verdicts of rows of check.csv; later rows replace earlier ones of the same combination."""
    kept = {_key(entry): entry for entry in (_read(path) if path.exists() else [])}
    for row in rows:
        names = ("model", "engine", "covariance", "rule", "prior_logit_variance", "simulations", "verdict")
        entry = {name: row[name] for name in names}
        kept[_key(entry)] = entry
    lines = ",\n".join("  " + json.dumps(kept[key], ensure_ascii=False) for key in sorted(kept))
    partial = path.with_suffix(".partial")
    partial.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    partial.replace(path)
    _record.cache_clear()


def _key(entry: dict[str, Any]) -> tuple[str, str, str, str, float]:
    names = ("model", "engine", "covariance", "rule")
    model, engine, covariance, rule = (str(entry[name]) for name in names)
    return model, engine, covariance, rule, float(entry["prior_logit_variance"])


def _read(path: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return entries


@lru_cache(maxsize=1)
def _record() -> dict[tuple[str, str, str, str], dict[float, str]]:
    """Combination -> prior variance of a logit -> verdict."""
    table: dict[tuple[str, str, str, str], dict[float, str]] = {}
    for entry in _read(RECORD):
        *combination, value = _key(entry)
        table.setdefault(tuple(combination), {})[value] = entry["verdict"]  # type: ignore[arg-type]
    return table
