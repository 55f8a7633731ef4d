"""All figures of a comparison, each with the words that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from bayes_clip.evaluation.metrics import auroc, confidence_and_correct
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.results import Comparison, Run, mean_and_standard_error
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.report.arms import Setting, detailed, featured, safe_name, settings_of
from bayes_clip.report.calibration_plots import reliability_diagram, risk_coverage_plot
from bayes_clip.report.engine_plots import SHOWN, engine_comparison, shots_curves
from bayes_clip.report.novelty_plots import novelty_histograms
from bayes_clip.report.picture_plots import sure_and_unsure

CURVE_METRICS = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Picture:
    """A figure, its file name without ending, the task it belongs to, and its words.

    `title` says what is seen, `caption` what to look for, `alt` what the figure shows in numbers, for those
    who cannot see it.
    """

    name: str
    task: str
    title: str
    caption: str
    alt: str
    figure: Figure


def draw(comparison: Comparison) -> list[Picture]:
    """Every figure, task by task. Figures of single runs show the first seed at the most shots."""
    settings = settings_of(comparison)
    pictures: list[Picture] = []
    for setting in detailed(settings):
        of_task = [other for other in settings if other.task == setting.task]
        pictures.append(_engines(setting))
        if len({other.shots for other in of_task if isinstance(other.shots, int)}) > 1:
            pictures.append(_shots(of_task))
        pictures += [_reliability(setting), _risk_coverage(setting)]
        if any(_scores_novelty(runs[0]) for runs in setting.arms.values()):
            pictures.append(_novelty(setting))
        images = comparison.tasks[setting.task].query_images
        if images is not None:
            pictures.append(
                _sure_and_unsure(setting, images.numpy(), comparison.tasks[setting.task].class_names)
            )
    for picture in pictures:
        picture.figure.draw_without_rendering()
        picture.figure.set_layout_engine(None)  # the layout is settled: three files are saved from it
    return pictures


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
        caption="Mean over draws of the labelled images; bars are one standard error. An engine "
        "that uses no labels has a flat line.",
        alt="Curves of accuracy, NLL and ECE against images per class; the numbers are in the table.",
        figure=shots_curves(means),
    )


def _reliability(setting: Setting) -> Picture:
    found = {
        label: reliability(*confidence_and_correct(runs[0].probabilities, runs[0].labels))
        for label, runs in setting.arms.items()
    }
    listed = ", ".join(f"{label} {one.ece:.3f} ({one.ece_if_calibrated:.3f})" for label, one in found.items())
    return Picture(
        name=f"reliability_{setting.slug}",
        task=setting.task,
        title=f"Is it right as often as it says? {_shown(setting)}",
        caption="Points on the dashed line: confidence can be taken at its word. Below it the model claims "
        "too much, above it too little. The blue-grey band is where 95% of perfectly calibrated models would "
        "lie with as few images per bin; points inside it are no evidence of anything. The floor in the "
        "title is the ECE such a model would show. Bars below count the test images.",
        alt=f"Reliability diagrams. ECE, and in brackets that of a calibrated model: {listed}.",
        figure=reliability_diagram(found),
    )


def _risk_coverage(setting: Setting) -> Picture:
    curves = {
        label: risk_coverage(*confidence_and_correct(runs[0].probabilities, runs[0].labels))
        for label, runs in setting.arms.items()
    }
    listed = ", ".join(f"{label} {curve.aurc:.3f}" for label, curve in curves.items())
    return Picture(
        name=f"risk_coverage_{setting.slug}",
        task=setting.task,
        title=f"What it gains by staying silent when unsure: {_shown(setting)}",
        caption="Read from right to left: the fewer images are answered, surest first, the fewer errors "
        "there should be. Dotted, what silence at random would give; dashed, the best order there could be "
        "at the same accuracy; pale, the other engines.",
        alt=f"Risk-coverage curves. Area under the curve, smaller is better: {listed}.",
        figure=risk_coverage_plot(curves),
    )


def _novelty(setting: Setting) -> Picture:
    inside: dict[str, np.ndarray] = {}
    outside: dict[str, np.ndarray] = {}
    for label, runs in setting.arms.items():
        if runs[0].ood_novelty is not None and _scores_novelty(runs[0]):
            inside[label], outside[label] = runs[0].novelty, runs[0].ood_novelty
    listed = ", ".join(f"{label} {auroc(inside[label], outside[label]):.3f}" for label in inside)
    return Picture(
        name=f"novelty_{setting.slug}",
        task=setting.task,
        title=f"Does it notice what belongs to no class? {_shown(setting)}",
        caption="Novelty score on test images and on images from outside (hatched). The less they overlap, "
        "the better a threshold keeps strangers out. AUROC is the chance that an outside image scores "
        "higher than a test image: 0.5 is guessing.",
        alt=f"Histograms of the novelty score. AUROC: {listed}.",
        figure=novelty_histograms(inside, outside),
    )


def _sure_and_unsure(setting: Setting, images: np.ndarray, class_names: Sequence[str]) -> Picture:
    label = featured(setting)
    run = setting.arms[label][0]
    return Picture(
        name=f"pictures_{setting.slug}",
        task=setting.task,
        title=f"What {label} is most and least sure about: {_shown(setting)}",
        caption="Under each test image, its three most probable classes. Green is the true class; an orange "
        "frame says that the most probable class is wrong. Confident errors would be framed in the upper "
        "half; in the lower half, look whether you would have hesitated too.",
        alt=f"Test images with the largest and the smallest winning probability of {label}.",
        figure=sure_and_unsure(images, run.probabilities, run.labels, class_names),
    )


def _scores_novelty(run: Run) -> bool:
    """Whether the run has out-of-distribution rows and a score that varies at all."""
    return run.ood_novelty is not None and float(np.ptp(np.append(run.novelty, run.ood_novelty))) > 0.0


def _shown(setting: Setting) -> str:
    """The setting and the seed whose run is shown; the whole support set is no draw and has none."""
    seed = next(iter(setting.arms.values()))[0].row.get("seed", "")
    return setting.name if seed == "" else f"{setting.name}, seed {seed}"
