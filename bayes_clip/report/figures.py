"""All figures of a comparison, each with the words that go with it."""

from __future__ import annotations

from collections.abc import Sequence

from bayes_clip.evaluation.results import Comparison, mean_and_standard_error
from bayes_clip.report import findings
from bayes_clip.report.arms import Setting, detailed, featured, safe_name, settings_of
from bayes_clip.report.engine_plots import SHOWN, engine_comparison, shots_curves
from bayes_clip.report.picture import Picture, settled
from bayes_clip.report.run_figures import of_runs
from bayes_clip.report.tradeoff_plots import tradeoff

CURVE_METRICS = ("accuracy", "nll", "ece")


def draw(comparison: Comparison) -> list[Picture]:
    """Every figure, task by task. Figures of single runs show the first seed at the most shots."""
    settings = settings_of(comparison)
    pictures: list[Picture] = []
    for setting in detailed(settings):
        of_task = [other for other in settings if other.task == setting.task]
        if len(setting.arms) > 1:
            pictures.append(_engines(setting))
        points = _points(setting)
        if len(points) > 1:
            pictures.append(_tradeoff(setting, points))
        if len({other.shots for other in of_task if isinstance(other.shots, int)}) > 1:
            pictures.append(_shots(of_task))
        pictures += of_runs(setting, comparison.tasks[setting.task])
    return settled(pictures)


def _engines(setting: Setting) -> Picture:
    values = {name: setting.values(name) for name, _ in SHOWN}
    seeds = max(len(runs) for runs in setting.arms.values())
    dots = "one draw of the labelled images."
    if seeds > 1:
        dots = (
            "small dots are draws of the labelled images, large ones their mean. Where the small dots of two "
            "engines overlap, one may still be ahead on every draw: the text compares them draw by draw."
        )
    return Picture(
        name=f"engines_{setting.slug}",
        task=setting.task,
        title=f"The engines side by side: {setting.name}",
        finding=findings.of_engines({name: _means(setting, name) for name in CURVE_METRICS}),
        caption=f"One row per engine; {dots}",
        alt=f"Dot plot of {', '.join(values)} for {', '.join(setting.arms)}; the numbers are in the table.",
        figure=engine_comparison(values, list(setting.arms)),
    )


def _shots(settings: Sequence[Setting]) -> Picture:
    means: dict[str, dict[str, dict[int, tuple[float, float]]]] = {name: {} for name in CURVE_METRICS}
    for setting in settings:
        if not isinstance(setting.shots, int):
            continue
        for name in CURVE_METRICS:
            for label, values in setting.values(name).items():
                mean, error = mean_and_standard_error(values)
                if not isinstance(mean, str):
                    spread = 0.0 if isinstance(error, str) else float(error)
                    means[name].setdefault(label, {})[setting.shots] = (float(mean), spread)
    return Picture(
        name=f"shots_{safe_name(settings[0].task)}",
        task=settings[0].task,
        title=f"What more labelled images bring: {settings[0].task}",
        finding=findings.of_shots(
            {
                label: {shots: mean for shots, (mean, _) in points.items()}
                for label, points in means["nll"].items()
            },
            featured(settings[-1]) if featured(settings[-1]) in means["nll"] else next(iter(means["nll"])),
        ),
        caption="Mean over draws of the labelled images; bars are one standard error. An engine "
        "that uses no labels has a flat line.",
        alt="Curves of accuracy, NLL and ECE against images per class; the numbers are in the table.",
        figure=shots_curves(means),
    )


def _tradeoff(setting: Setting, points: dict[str, dict[str, float]]) -> Picture:
    return Picture(
        name=f"tradeoff_{setting.slug}",
        task=setting.task,
        title=f"What good probabilities cost: {setting.name}",
        finding=findings.of_tradeoff(points),
        caption="Means over draws. Nothing lies below and to the left of the dashed front. Filled: no other "
        "engine is better in NLL, ECE and seconds at once. Seconds are those of this machine.",
        alt=f"NLL and ECE against seconds to fit for {', '.join(points)}; the numbers are in the table.",
        figure=tradeoff(points),
    )


def _means(setting: Setting, metric: str) -> dict[str, float]:
    """Label -> mean over seeds; labels without a number are left out."""
    means = {label: mean_and_standard_error(values)[0] for label, values in setting.values(metric).items()}
    return {label: float(mean) for label, mean in means.items() if not isinstance(mean, str)}


def _points(setting: Setting) -> dict[str, dict[str, float]]:
    """NLL, ECE and seconds of every arm that has all three."""
    found = {name: _means(setting, name) for name in ("nll", "ece", "fit_seconds")}
    return {
        label: {name: means[label] for name, means in found.items()}
        for label in setting.arms
        if all(label in means for means in found.values())
    }
