"""Figures of one fit, from the support set alone: the prior variance, the stream, and what was held out."""

from __future__ import annotations

import numpy as np

from bayes_clip.evaluation.holdout import HeldOut
from bayes_clip.evaluation.prior_profile import tried
from bayes_clip.evaluation.reliability import reliability
from bayes_clip.evaluation.selective import risk_coverage
from bayes_clip.fitting import Fit
from bayes_clip.report import findings
from bayes_clip.report.calibration_plots import reliability_diagram, risk_coverage_plot
from bayes_clip.report.picture import Picture
from bayes_clip.report.prior_plots import prior_variance_profile
from bayes_clip.report.stream_plots import Course, course_of, innovation_course, prequential_curve

FEWEST_BATCHES = 4  # fewer make no stream to look at
FEWEST_LAGS = 2  # from a stream of fewer batches nothing can be said of whiteness


def prior_picture(fit: Fit, task: str) -> Picture | None:
    """The prior variances tried, where there were several."""
    profile, chosen = tried(fit.tuned), fit.tuned.prior_variance
    if len(profile["folds"]) < 2:
        return None
    worst = max(profile["folds"].values()) - min(profile["folds"].values())
    at_end = chosen in (min(profile["folds"]), max(profile["folds"]))
    listed = ", ".join(f"{value:.3g}: {nll:.3f}" for value, nll in profile["folds"].items())
    where = "at the end of what was tried" if at_end else "between its neighbours"
    return Picture(
        name="prior_variance",
        task=task,
        title="Which prior variance the labels speak for",
        finding=f"{chosen:.3g} was chosen, {where}; the worst of {len(profile['folds'])} tried would have "
        f"cost {worst:.3f} nats a label on left-out folds.",
        caption="Parts of the labelled images are left out in turn and predicted. The hyper-prior keeps the "
        "choice near what is usual where labels are too few to tell.",
        alt=f"NLL of left-out folds by prior variance: {listed}.",
        figure=prior_variance_profile(profile, chosen),
    )


def stream_pictures(fit: Fit, task: str, num_classes: int) -> list[Picture]:
    """The filter at work; empty for other engines, and where later passes make its scores mean less."""
    if "prequential_score" not in fit.info or len(fit.steps) < FEWEST_BATCHES:
        return []
    course = course_of(fit.steps)
    return [_prequential(course, task, num_classes), _innovations(course, task)]


def held_out_pictures(held_out: HeldOut | None, engine: str, task: str) -> list[Picture]:
    """Reliability and risk-coverage of the labelled images left out in turn."""
    if held_out is None:
        return []
    found = {engine: reliability(held_out.confidence, held_out.correct)}
    curves = {engine: risk_coverage(held_out.confidence, held_out.correct)}
    rows = len(held_out.correct)
    own, curve = found[engine], curves[engine]
    return [
        Picture(
            name="held_out_reliability",
            task=task,
            title="Is it right as often as it says, on labels it had not seen?",
            finding=findings.of_reliability(found),
            caption=f"All {rows} labelled images, predicted by fits that left them out. The band is where "
            "95% of calibrated models would lie; with so few images it is wide. The final fit has seen more.",
            alt=f"Reliability diagram: ECE {own.ece:.3f}, of a calibrated model {own.ece_if_calibrated:.3f}.",
            figure=reliability_diagram(found),
        ),
        Picture(
            name="held_out_risk_coverage",
            task=task,
            title="What it would gain by staying silent when unsure",
            finding=findings.of_silence(curves),
            caption="The same left-out images, surest first: --abstain-at of predict goes by them.",
            alt=f"Risk-coverage curve: area {curve.aurc:.3f}, of the best order {curve.oracle.mean():.3f}.",
            figure=risk_coverage_plot(curves),
        ),
    ]


def _prequential(course: Course, task: str, num_classes: int) -> Picture:
    guessing, first, total = np.log(num_classes), course.cost[0], course.mean_cost[-1]
    late = course.cost[-max(1, len(course.cost) // 4) :].mean()
    learning = "still falling" if late < first else "no lower at the end than at the beginning"
    return Picture(
        name="prequential_score",
        task=task,
        title="What each label cost before it was learned",
        finding=f"{total:.3f} nats a label on average ({guessing:.3f} by guessing); {first:.3f} in the first "
        f"batch and {late:.3f} in the last quarter: {learning}.",
        caption="The filter predicts every batch before it learns it. The sum of these costs is minus the "
        "prequential score: an honest measure of a stream that needs no test images.",
        alt=f"Cost of {len(course.cost)} batches: mean {total:.3f}, last quarter {late:.3f} nats a label.",
        figure=prequential_curve({"ekf": course}, num_classes),
    )


def _innovations(course: Course, task: str) -> Picture:
    ratio = course.overall_ratio
    said = "more surprised than it expected" if ratio > 1 else "less surprised than it expected"
    white = "With so few batches nothing can be said of whether surprises repeat."
    if len(course.correlation) >= FEWEST_LAGS:
        outside = int((np.abs(course.correlation) > course.limit).sum())
        white = f"{outside} of {len(course.correlation)} autocorrelations leave the band of a white sequence."
    return Picture(
        name="innovations",
        task=task,
        title="Is the filter surprised as often as it expects?",
        finding=f"Normalised innovation squared over its degrees of freedom: {ratio:.3g}, so it was {said}. "
        f"{white}",
        caption="A consistent filter stays near 1. The band holds for Gaussian observations; labels scatter "
        "more widely, because a sure answer that is wrong surprises without bound. bayes-clip check tests "
        "the same against the filter's own draws.",
        alt=f"NIS over degrees of freedom of {len(course.rows)} batches, {ratio:.3g} overall, and its "
        "autocorrelations.",
        figure=innovation_course(course),
    )
