"""Which runs of a comparison belong together, what to call them, and which one to show in detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bayes_clip.evaluation.results import Cell, Comparison, Run
from bayes_clip.report.style import SEPARATOR, engine_of

FEATURED_ENGINES = ("ekf", "laplace", "vi", "nuts", "map", "sgd")  # the first that ran is shown in detail
REFERENCE_ENGINE = "zero_shot"
TELLING_COLUMNS = ("model", "covariance", "rule")  # they join the label where one engine ran with several


@dataclass(frozen=True)
class Setting:
    """One task with one number of shots, and its runs by label; each list has one run per seed."""

    task: str
    shots: Cell  # images per class; a word or an empty string for the whole support set
    arms: dict[str, list[Run]]

    @property
    def name(self) -> str:
        """Task and shots, as a title: "digits, 4 images per class"."""
        return f"{self.task}, {shots_in_words(self.shots)}"

    @property
    def slug(self) -> str:
        """The same for file names and anchors: "digits_4_shots"."""
        shots = f"{self.shots}_shots" if isinstance(self.shots, int) else "all"
        return f"{safe_name(self.task)}_{shots}"

    def values(self, metric: str) -> dict[str, list[Cell]]:
        """A column of metrics.csv: label -> its value for each seed."""
        return {label: [run.row.get(metric, "") for run in runs] for label, runs in self.arms.items()}


def settings_of(comparison: Comparison) -> list[Setting]:
    """Every setting in the order of the runs, shots ascending within a task and the whole set last."""
    labels = _labels(comparison.runs)
    found: dict[tuple[str, Cell], Setting] = {}
    for run, label in zip(comparison.runs, labels, strict=True):
        key = (str(run.row["task"]), run.row.get("shots", ""))
        found.setdefault(key, Setting(*key, arms={})).arms.setdefault(label, []).append(run)
    tasks = list(dict.fromkeys(task for task, _ in found))
    return sorted(found.values(), key=lambda setting: (tasks.index(setting.task), _shots_key(setting.shots)))


def detailed(settings: Sequence[Setting]) -> list[Setting]:
    """The setting of each task with the most shots: the one whose single figures are shown."""
    return list({setting.task: setting for setting in settings}.values())


def featured(setting: Setting) -> str:
    """Label of the arm the words and the pictures are about: the first of FEATURED_ENGINES that ran."""
    for engine in FEATURED_ENGINES:
        for label in setting.arms:
            if engine_of(label) == engine:
                return label
    return next(reversed(setting.arms))


def safe_name(task: str) -> str:
    """The task's name with whatever is no letter, digit, hyphen or underscore made an underscore."""
    return "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in task)


def shots_in_words(shots: Cell) -> str:
    """ "1 image per class", "4 images per class", "all labelled images"."""
    if not isinstance(shots, int):
        return "all labelled images"
    return "1 image per class" if shots == 1 else f"{shots} images per class"


def _labels(runs: Sequence[Run]) -> list[str]:
    """Engine of each run, followed by what tells it from another arm of the same engine."""
    rows = [run.row for run in runs]
    labels = []
    for row in rows:
        kin = [other for other in rows if other["engine"] == row["engine"]]
        telling: list[str] = []
        for name in TELLING_COLUMNS:  # what earlier columns tell already is not said again
            if _different(kin, [*telling, name]) > _different(kin, telling):
                telling.append(name)
        labels.append(SEPARATOR.join([str(row["engine"]), *(str(row.get(name, "")) for name in telling)]))
    return labels


def _different(rows: Sequence[Mapping[str, Cell]], columns: Sequence[str]) -> int:
    """How many combinations of values `columns` have."""
    return len({tuple(row.get(name, "") for name in columns) for row in rows})


def _shots_key(shots: Cell) -> float:
    return float(shots) if isinstance(shots, int) else float("inf")
