"""The tables of the report: means over seeds with their standard errors, and the data it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bayes_clip.data.task import Task
from bayes_clip.evaluation.results import Cell, mean_and_standard_error
from bayes_clip.report.arms import Setting, featured

# Column of metrics.csv, heading, digits, whether more is better (None: neither), what it is in a few words.
COLUMNS: tuple[tuple[str, str, int, bool | None, str], ...] = (
    ("accuracy", "Accuracy", 3, True, "share of test images named right"),
    ("nll", "NLL", 3, False, "log-loss in nats"),
    ("brier", "Brier", 3, False, "squared error of the probabilities"),
    ("ece", "ECE", 3, False, "gap between confidence and accuracy"),
    ("adaptive_ece", "Adaptive ECE", 3, False, "the same in bins of equal size"),
    ("classwise_ece", "Classwise ECE", 3, False, "the same for every class, averaged"),
    ("smooth_ece", "Smooth ECE", 3, False, "the same without bins"),
    ("aurc", "AURC", 3, False, "error rate averaged over shares answered"),
    ("ood_auroc", "OOD AUROC", 3, True, "how well outside images are told"),
    ("ood_fpr95", "OOD FPR95", 3, False, "outside images let in when 95 % of test images are"),
    ("prior_variance", "Prior variance", 4, None, "of each weight, chosen or given"),
    ("fit_seconds", "Fit,\u00a0s", 2, None, "seconds to fit"),
    ("predict_seconds", "Predict,\u00a0s", 2, None, "seconds to predict the test images"),
)

# What else is measured, and shown with its interval alone.
SCORE_TITLES = {name: heading for name, heading, *_ in COLUMNS} | {
    "ece_10": "ECE, 10 bins",
    "ece_20": "ECE, 20 bins",
    "top_label_ece": "Top-label ECE",
    "debiased_ece": "Debiased ECE",
    "max_calibration_error": "Largest gap of a bin",
}


@dataclass(frozen=True)
class TableCell:
    """A mean with its standard error as text, the number to sort by, and whether it is the best."""

    mean: str
    error: str
    number: float | None
    best: bool


@dataclass(frozen=True)
class TableRow:
    """One arm: its label, how many seeds, whether the words are about it, and its cells."""

    label: str
    seeds: int
    featured: bool
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class MetricTable:
    """All arms of a setting; `headings` are (heading, explanation) in the order of the cells."""

    title: str
    slug: str
    headings: tuple[tuple[str, str], ...]
    rows: tuple[TableRow, ...]


def metric_table(setting: Setting) -> MetricTable:
    """Columns without a single number are left out."""
    shown = [column for column in COLUMNS if any(map(_has_number, setting.values(column[0]).values()))]
    by_column = [_cells(setting, name, digits, larger) for name, _, digits, larger, _ in shown]
    return MetricTable(
        title=setting.name,
        slug=setting.slug,
        headings=tuple((heading, words) for _, heading, _, _, words in shown),
        rows=tuple(
            TableRow(
                label, len(runs), label == featured(setting), tuple(column[label] for column in by_column)
            )
            for label, runs in setting.arms.items()
        ),
    )


def data_rows(tasks: Mapping[str, Task], settings: Sequence[Setting]) -> list[dict[str, str]]:
    """One row per task: what the engines were given and what they were asked."""
    rows = []
    for name, task in tasks.items():
        support = [
            run.row["n_support"]
            for one in settings
            if one.task == name
            for run in next(iter(one.arms.values()))
        ]
        rows.append(
            {
                "Task": name,
                "Classes": f"{task.num_classes:,}",
                "Labelled images": " / ".join(f"{int(count):,}" for count in dict.fromkeys(support)),
                "Test images": f"{len(task.query_labels):,}",
                "Outside images": "none" if task.ood_features is None else f"{len(task.ood_features):,}",
                "Features": f"{task.num_features:,}",
                "Class names known": "no" if task.text_features is None else "yes, as text",
            }
        )
    return rows


def _cells(setting: Setting, name: str, digits: int, larger: bool | None) -> dict[str, TableCell]:
    """label -> cell. Every arm whose rounded mean equals the best one is marked."""
    found = {label: mean_and_standard_error(values) for label, values in setting.values(name).items()}
    numbers = {
        label: round(float(mean), digits) for label, (mean, _) in found.items() if not isinstance(mean, str)
    }
    top = None if larger is None or len(numbers) < 2 else (max if larger else min)(numbers.values())
    return {
        label: TableCell(
            mean=_text(mean, digits),
            error=_text(error, digits),
            number=None if isinstance(mean, str) else float(mean),
            best=top is not None and numbers.get(label) == top,
        )
        for label, (mean, error) in found.items()
    }


def _has_number(values: Sequence[Cell]) -> bool:
    return any(not isinstance(value, str) for value in values)


def _text(value: Cell, digits: int) -> str:
    return value if isinstance(value, str) else f"{value:.{digits}f}"
