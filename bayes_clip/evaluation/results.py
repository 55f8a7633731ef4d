"""What a comparison of engines leaves behind: one `Run` per row of metrics.csv, and their summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from bayes_clip.evaluation import metrics
from bayes_clip.evaluation.calibration import debiased_ece, max_calibration_error, top_label_ece
from bayes_clip.evaluation.metrics import Array
from bayes_clip.evaluation.selective import aurc
from bayes_clip.evaluation.smooth_ece import smooth_ece

if TYPE_CHECKING:
    from bayes_clip.data.task import Task

Cell = str | int | float

METRIC_COLUMNS: tuple[str, ...] = (
    *("task", "model", "engine", "shots", "seed", "n_support", "n_query"),
    *("accuracy", "nll", "brier", "ece", "adaptive_ece", "ood_auroc"),
    *("prior_variance", "fit_seconds", "predict_seconds"),
    # Up to here the order is fixed for good; what follows may grow.
    *("classwise_ece", "ood_fpr95", "aurc", "covariance", "rule", "predictive", "novelty_score", "backbone"),
    *("ece_10", "ece_20", "top_label_ece", "debiased_ece", "max_calibration_error", "smooth_ece"),
    "self_check",
)

SCORE_COLUMNS: tuple[str, ...] = (
    *("accuracy", "nll", "brier", "ece", "adaptive_ece", "classwise_ece", "aurc", "ood_auroc", "ood_fpr95"),
    *("ece_10", "ece_20", "top_label_ece", "debiased_ece", "max_calibration_error", "smooth_ece"),
)
MEASURED_COLUMNS: tuple[str, ...] = (*SCORE_COLUMNS, "prior_variance", "fit_seconds", "predict_seconds")

# What makes two rows repetitions of one another that differ in the draw of the support set alone.
ARM_COLUMNS: tuple[str, ...] = ("task", "shots", "model", "engine", "covariance", "rule")


@dataclass(frozen=True)
class Run:
    """One engine fitted on one support set and tried on the query set. M query rows, C classes, K OOD rows.

    `row` holds the columns of metrics.csv; an empty string where a column does not apply.
    `novelty` is larger for what is less like the support set; `epistemic` is the mutual information between
    label and weights in nats (zeros for point estimates). All arrays are float64 but the int64 labels.
    """

    row: Mapping[str, Cell]
    probabilities: Array  # (M, C)
    labels: np.ndarray  # (M,)
    novelty: Array  # (M,)
    epistemic: Array  # (M,)
    ood_novelty: Array | None = None  # (K,)
    ood_probabilities: Array | None = None  # (K, C)

    def __repr__(self) -> str:
        described = ", ".join(f"{self.row.get(name, '')}" for name in ("task", "engine", "shots", "seed"))
        return f"Run({described}, accuracy={self.row.get('accuracy', '')}, nll={self.row.get('nll', '')})"


@dataclass(frozen=True)
class Comparison:
    """The runs, the tasks by name, what was asked (`config`) and what the user should be told (`notes`)."""

    runs: tuple[Run, ...]
    tasks: Mapping[str, Task]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        engines = ", ".join(dict.fromkeys(str(run.row.get("engine", "")) for run in self.runs))
        return f"Comparison({len(self.runs)} runs; tasks: {', '.join(self.tasks)}; engines: {engines})"

    def columns(self) -> list[str]:
        """Columns of metrics.csv: METRIC_COLUMNS in their order, then whatever else the rows hold."""
        return list(dict.fromkeys([*METRIC_COLUMNS, *(name for run in self.runs for name in run.row)]))


def score(
    probabilities: ArrayLike, labels: ArrayLike, novelty: ArrayLike, ood_novelty: ArrayLike | None = None
) -> dict[str, Cell]:
    """The SCORE_COLUMNS of one run; the two OOD columns are empty strings without OOD rows."""
    confidence, correct = metrics.confidence_and_correct(probabilities, labels)
    return {
        "accuracy": metrics.accuracy(probabilities, labels),
        "nll": metrics.nll(probabilities, labels),
        "brier": metrics.brier(probabilities, labels),
        "ece": metrics.ece(probabilities, labels),
        "adaptive_ece": metrics.adaptive_ece(probabilities, labels),
        "classwise_ece": metrics.classwise_ece(probabilities, labels),
        "aurc": aurc(confidence, correct),
        "ood_auroc": "" if ood_novelty is None else metrics.auroc(novelty, ood_novelty),
        "ood_fpr95": "" if ood_novelty is None else metrics.fpr_at_95_tpr(novelty, ood_novelty),
        "ece_10": metrics.ece(probabilities, labels, 10),
        "ece_20": metrics.ece(probabilities, labels, 20),
        "top_label_ece": top_label_ece(probabilities, labels),
        "debiased_ece": debiased_ece(probabilities, labels),
        "max_calibration_error": max_calibration_error(probabilities, labels),
        "smooth_ece": smooth_ece(probabilities, labels),
    }


def arm(row: Mapping[str, Cell]) -> tuple[Cell, ...]:
    """What the runs that differ only in their seed have in common: the values of ARM_COLUMNS."""
    return tuple(row.get(name, "") for name in ARM_COLUMNS)


def summarise(comparison: Comparison) -> list[dict[str, Cell]]:
    """One dict per arm (in the order of the runs): ARM_COLUMNS, `seeds` (how many), and for each of
    MEASURED_COLUMNS its mean over seeds under its own name and the standard error under `<name>_se`.

    `self_check` joins the verdicts where the draws lie in different regimes.

    The standard error is of the mean over seeds (draws of the support set; the query set is the same), with
    n - 1 degrees of freedom; empty for one seed. A column that is empty in every row stays empty.
    """
    arms: dict[tuple[Cell, ...], list[Mapping[str, Cell]]] = {}
    for run in comparison.runs:
        arms.setdefault(arm(run.row), []).append(run.row)
    return [_summary(key, rows) for key, rows in arms.items()]


def mean_and_standard_error(values: Iterable[Cell]) -> tuple[Cell, Cell]:
    """Mean and standard error of the numbers among `values`; empty strings where there are too few."""
    numbers = np.array([float(value) for value in values if not isinstance(value, str)])
    mean: Cell = float(numbers.mean()) if len(numbers) else ""
    error: Cell = float(numbers.std(ddof=1) / np.sqrt(len(numbers))) if len(numbers) > 1 else ""
    return mean, error


def _summary(key: tuple[Cell, ...], rows: list[Mapping[str, Cell]]) -> dict[str, Cell]:
    summary: dict[str, Cell] = {**dict(zip(ARM_COLUMNS, key, strict=True)), "seeds": len(rows)}
    checked = (str(row.get("self_check", "")) for row in rows)
    summary["self_check"] = " or ".join(dict.fromkeys(verdict for verdict in checked if verdict))
    for name in MEASURED_COLUMNS:
        summary[name], summary[f"{name}_se"] = mean_and_standard_error(row.get(name, "") for row in rows)
    return summary
