"""Figures of single runs: the first seed of each arm of a setting, each with the words that go with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayes_clip.data.task import Task
from bayes_clip.evaluation.metrics import auroc, confidence_and_correct, fpr_at_95_tpr
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.results import Run
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.report import findings
from bayes_clip.report.arms import Setting, featured
from bayes_clip.report.calibration_plots import reliability_diagram, risk_coverage_plot
from bayes_clip.report.classwise_plots import MOST_CLASSES, classwise_reliability, of_classes
from bayes_clip.report.novelty_plots import novelty_histograms, novelty_roc
from bayes_clip.report.picture import Picture
from bayes_clip.report.picture_plots import most_and_least_sure, sure_and_unsure
from bayes_clip.report.uncertainty_plots import Doubt, confidence_against_epistemic

PICTURES = 6  # in each row of them


def of_runs(setting: Setting, task: Task) -> list[Picture]:
    """Reliability, silence, doubts, novelty and pictures, as far as the runs and the task have them."""
    pictures = [_reliability(setting), _classwise(setting, task.class_names), _risk_coverage(setting)]
    doubts = _doubts(setting)
    if doubts:
        pictures.append(_epistemic(setting, doubts))
    if any(_scores_novelty(runs[0]) for runs in setting.arms.values()):
        pictures += _novelty(setting)
    if task.query_images is not None:
        pictures.append(_sure_and_unsure(setting, task.query_images.numpy(), task.class_names))
    return pictures


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
        finding=findings.of_reliability(found),
        caption="Points on the dashed line: confidence can be taken at its word. Below it the model claims "
        "too much, above it too little. The blue-grey band is where 95% of perfectly calibrated models would "
        "lie with as few images per bin; points inside it are no evidence of anything. The floor in the "
        "title is the ECE such a model would show. Bars below count the test images.",
        alt=f"Reliability diagrams. ECE, and in brackets that of a calibrated model: {listed}.",
        figure=reliability_diagram(found),
    )


def _classwise(setting: Setting, class_names: Sequence[str]) -> Picture:
    label = featured(setting)
    run = setting.arms[label][0]
    found = of_classes(run.probabilities, run.labels, class_names)
    few = run.probabilities.shape[1] <= MOST_CLASSES
    which = "every class" if few else f"the {len(found)} classes that are furthest from their word"
    listed = ", ".join(f"{name} {one.ece:.3f} ({one.ece_if_calibrated:.3f})" for name, one in found.items())
    return Picture(
        name=f"classwise_{setting.slug}",
        task=setting.task,
        title=f"{label}, class by class: {_shown(setting)}",
        finding=findings.of_classes(found),
        caption=f"One panel for {which}: of the images to which {label} gives the class a probability, the "
        "share that have it. Points below the dashed line: it is seen too often; above: overlooked. Their "
        "area tells the images, the band where 95% of calibrated models would lie.",
        alt=f"Reliability of {label} by class. ECE, and in brackets that of a calibrated model: {listed}.",
        figure=classwise_reliability(found, label),
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
        finding=findings.of_silence(curves),
        caption="Read from right to left: the fewer images are answered, surest first, the fewer errors "
        "there should be. Dotted, what silence at random would give; dashed, the best order there could be "
        "at the same accuracy; pale, the other engines.",
        alt=f"Risk-coverage curves. Area under the curve, smaller is better: {listed}.",
        figure=risk_coverage_plot(curves),
    )


def _doubts(setting: Setting) -> dict[str, Doubt]:
    """The doubts of every arm that has an epistemic one."""
    return {
        label: Doubt(*confidence_and_correct(runs[0].probabilities, runs[0].labels), runs[0].epistemic)
        for label, runs in setting.arms.items()
        if runs[0].epistemic.max() > 0
    }


def _epistemic(setting: Setting, doubts: dict[str, Doubt]) -> Picture:
    listed = ", ".join(
        "{} {:.2f} and {:.2f}".format(label, *doubt.finds_errors) for label, doubt in doubts.items()
    )
    return Picture(
        name=f"doubts_{setting.slug}",
        task=setting.task,
        title=f"Two doubts: a low probability, and weights not known. {_shown(setting)}",
        finding=findings.of_doubts(doubts),
        caption="A mark per test image (500 at most); crosses are wrong answers. To the left the answer is "
        "doubtful, for whatever reason; further up the weights disagree about it, so that more labels would "
        "help. A good alarm has the crosses to one side of the dots. The titles say how often a wrong answer "
        "is more doubtful than a right one.",
        alt=f"Scatter of confidence and epistemic doubt. AUROC for errors of either: {listed}.",
        figure=confidence_against_epistemic(doubts),
    )


def _novelty(setting: Setting) -> list[Picture]:
    inside: dict[str, np.ndarray] = {}
    outside: dict[str, np.ndarray] = {}
    for label, runs in setting.arms.items():
        if runs[0].ood_novelty is not None and _scores_novelty(runs[0]):
            inside[label], outside[label] = runs[0].novelty, runs[0].ood_novelty
    listed = ", ".join(f"{label} {auroc(inside[label], outside[label]):.3f}" for label in inside)
    histograms = Picture(
        name=f"novelty_{setting.slug}",
        task=setting.task,
        title=f"Does it notice what belongs to no class? {_shown(setting)}",
        finding=findings.of_novelty(inside, outside),
        caption="Novelty score on test images and on images from outside (hatched). The less they overlap, "
        "the better a threshold keeps strangers out. AUROC is the chance that an outside image scores "
        "higher than a test image: 0.5 is guessing.",
        alt=f"Histograms of the novelty score. AUROC: {listed}.",
        figure=novelty_histograms(inside, outside),
    )
    caught = {label: 1 - fpr_at_95_tpr(inside[label], outside[label]) for label in inside}
    said = findings.listed([f"{label} {share:.1%}" for label, share in caught.items()])
    curves = Picture(
        name=f"roc_{setting.slug}",
        task=setting.task,
        title=f"What each threshold on novelty would do: {_shown(setting)}",
        finding=f"At 5% false alarms, outside images kept out: {said}.",
        caption="Every point of a line is a threshold: how many test images it turns away by mistake, and "
        "how many outside images. The nearer to the upper left corner, the better. Dots: 5% false alarms.",
        alt=f"ROC curves of the novelty score. AUROC: {listed}.",
        figure=novelty_roc(inside, outside),
    )
    return [histograms, curves]


def _sure_and_unsure(setting: Setting, images: np.ndarray, class_names: Sequence[str]) -> Picture:
    label = featured(setting)
    run = setting.arms[label][0]
    right = run.probabilities.argmax(1) == run.labels
    surest, least = (right[rows].tolist() for rows in most_and_least_sure(run.probabilities, PICTURES))
    return Picture(
        name=f"pictures_{setting.slug}",
        task=setting.task,
        title=f"What {label} is most and least sure about: {_shown(setting)}",
        finding=findings.of_pictures(surest, least),
        caption="Under each test image, its three most probable classes. Green is the true class; an orange "
        "frame says that the most probable class is wrong. Confident errors would be framed in the upper "
        "half; in the lower half, look whether you would have hesitated too.",
        alt=f"Test images with the largest and the smallest winning probability of {label}.",
        figure=sure_and_unsure(images, run.probabilities, run.labels, class_names, PICTURES),
    )


def _scores_novelty(run: Run) -> bool:
    """Whether the run has out-of-distribution rows and a score that varies at all."""
    return run.ood_novelty is not None and float(np.ptp(np.append(run.novelty, run.ood_novelty))) > 0.0


def _shown(setting: Setting) -> str:
    """The setting and the seed whose run is shown; the whole support set is no draw and has none."""
    seed = next(iter(setting.arms.values()))[0].row.get("seed", "")
    return setting.name if seed == "" else f"{setting.name}, seed {seed}"
