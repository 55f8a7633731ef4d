"""The page of a check: figures with their findings, the table of verdicts, and what the words mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayes_clip.evaluation.checking import Arm, Check, CheckReport
from bayes_clip.evaluation.coverage import LEVELS
from bayes_clip.evaluation.uniformity import NARROW, PASSES, WIDE, rejected
from bayes_clip.report.arms import safe_name
from bayes_clip.report.check_plots import coverage_plot, innovation_plot, rank_functions, rank_histograms
from bayes_clip.report.document import Document, Section, grid
from bayes_clip.report.findings import listed
from bayes_clip.report.glossary import CHECK_TERMS
from bayes_clip.report.picture import Picture

SUMMARY = "summary"  # the section of figures about all arms
COLUMNS = (
    ("arm", "Engine", "with its covariance and rule", None),
    ("prior_logit_variance", "s²v", "prior variance of a logit", None),
    ("verdict", "Verdict", "of the ranks, or where they pass of the innovations", None),
    ("width_needed", "Width needed ×", "how many times as wide the posterior should have been", 2),
    *(
        (f"coverage_{100 * level:.0f}", f"{level:.0%}", f"truths inside the {level:.0%} interval", 2)
        for level in LEVELS
    ),
    ("pareto_k", "k̂", "Pareto-k̂, median: above the threshold draws cannot be reweighted", 2),
    ("labels", "On labels", "the filter's innovations on labels", None),
    ("labels_whiteness", "Whiteness", "correlation of successive innovations in standard errors", 1),
    ("numbers", "On numbers", "the same on Gaussian observations", None),
)


def document_of(report: CheckReport) -> Document:
    """The page of a check."""
    drawn = pictures(report)
    sound = [check for check in report.checks if check.verdict == PASSES]
    rows = [{**check.row, "arm": check.arm.label} for check in report.checks]
    sections = [
        Section(
            "answer",
            "The answer",
            sentences=tuple(_sentence(check) for check in report.checks),
            paragraphs=(
                "True weights were drawn from the model's prior, labels from them, and each engine was "
                "asked where the truth lies. A sound engine has the truth at any rank among "
                "its draws equally often. Not passing is a finding about that regime, not a reason never to "
                "use an engine: accuracy and NLL are measured by compare.",
            ),
        ),
        Section(SUMMARY, "All numbers", tables=(grid("Verdicts", COLUMNS, rows),)),
    ]
    for section in (SUMMARY, *dict.fromkeys(check.arm.label for check in report.checks)):
        own = tuple(picture for picture in drawn if picture.task == section)
        if section == SUMMARY:
            sections.append(Section("coverage", "Do intervals hold what they promise?", pictures=own))
        else:
            sections.append(Section(f"arm-{safe_name(section)}", section, pictures=own))
    return Document(
        kicker="engines held against their own claims",
        headline=f"{len(sound)} of {len(report.checks)} checks pass",
        byline=f"{report.config['simulations']} data sets for each check, seed {report.config['seed']}.",
        sections=tuple(sections),
        notes=report.notes,
        terms=CHECK_TERMS,
        files="Beside this page lie checks.csv (a row per check), quantities.csv (one per ranked quantity), "
        "verdicts.json, and figures/ as PNG and SVG. What was asked:",
        config=report.config,
    )


def pictures(report: CheckReport) -> list[Picture]:
    """Every figure: coverage of all arms, and the ranks and innovations of each."""
    if not report.checks:
        return []
    found = [_coverage(report.checks)]
    for arm in dict.fromkeys(check.arm for check in report.checks):
        own = [check for check in report.checks if check.arm == arm]
        found += [_ranks(arm, own), _functions(arm, own)]
        if any(check.labels is not None for check in own):
            found.append(_innovations(arm, own))
    return found


def _sentence(check: Check) -> str:
    own = check.calibration
    said = f"{check.arm.label} at a prior logit variance of {check.prior_logit_variance:g}: {check.verdict}"
    if (own.verdict == NARROW and own.width_needed > 1) or (own.verdict == WIDE and own.width_needed < 1):
        return f"{said}; it should have been {own.width_needed:.2f} times as wide."
    return f"{said}." if own.verdict == PASSES else f"{said}; what fails most is {check.row['worst']}."


def _coverage(checks: Sequence[Check]) -> Picture:
    highest = [(check, check.calibration.coverage[-1]) for check in checks]
    kept = [found for _, found in highest if found.inside]
    worst, found = min(highest, key=lambda pair: pair[1].share)
    named = ", ".join(f"{_named(check)} {one.share:.1%}" for check, one in highest)
    return Picture(
        name="coverage",
        task=SUMMARY,
        title="How often the intervals hold the truth",
        finding=f"{len(kept)} of {len(highest)} keep their {found.level:.0%} promise as far as can be told; "
        f"the fewest truths are inside for {_named(worst)}: {found.share:.1%}.",
        caption="The band is where a sound engine would lie with as many simulations. To the left of it the "
        "intervals are too narrow.",
        alt=f"Share of truths inside the {found.level:.0%} intervals: {named}.",
        figure=coverage_plot(checks),
    )


def _ranks(arm: Arm, checks: Sequence[Check]) -> Picture:
    said = listed([f"{check.calibration.verdict} at {check.prior_logit_variance:g}" for check in checks])
    return Picture(
        name=f"ranks_{_slug(arm)}",
        task=arm.label,
        title=f"Where the truth ranks among draws of {arm.label}",
        finding=f"By prior logit variance: {said}.",
        caption="Flat is right. A valley says that the posterior is too narrow: the truth lies at its edges "
        "too often; a hill, that it is too wide; a slope, that it is shifted.",
        alt=f"Rank histograms of {arm.label}: {said}.",
        figure=rank_histograms(checks),
    )


def _functions(arm: Arm, checks: Sequence[Check]) -> Picture:
    outside = [
        f"{sum(rejected(_p_values(check)))} of {len(check.calibration.checks)} at "
        f"{check.prior_logit_variance:g}"
        for check in checks
    ]
    return Picture(
        name=f"rank_functions_{_slug(arm)}",
        task=arm.label,
        title=f"The same, quantity by quantity: {arm.label}",
        finding=f"Quantities that fail, by prior logit variance: {listed(outside)}.",
        caption="Each line is a weight, a logit difference or the log likelihood. Waves up first and then "
        "down: too narrow. Down first and then up: too wide.",
        alt=f"Distribution functions of ranks of {arm.label}; quantities that fail: {listed(outside)}.",
        figure=rank_functions(checks),
    )


def _innovations(arm: Arm, checks: Sequence[Check]) -> Picture:
    said = [
        f"{check.labels.verdict} at {check.prior_logit_variance:g} (surprise {check.labels.nis_ratio:.2f} "
        f"times its degrees of freedom, whiteness {check.labels.whiteness:+.1f} standard errors)"
        for check in checks
        if check.labels is not None
    ]
    return Picture(
        name=f"innovations_{_slug(arm)}",
        task=arm.label,
        title=f"Is the filter surprised as often as it says? {arm.label}",
        finding=f"On labels, by prior logit variance: {listed(said)}.",
        caption="Ranks of each batch's innovation among those the filter itself would draw, and of each "
        "label given the ones before. Flat is right. Whiteness above 2: surprises repeat, it is sluggish; "
        "below -2: they alternate, it overshoots.",
        alt=f"Innovations of {arm.label}: {listed(said)}.",
        figure=innovation_plot(checks),
    )


def _p_values(check: Check) -> np.ndarray:
    return np.array([each.p_value for each in check.calibration.checks])


def _named(check: Check) -> str:
    return f"{check.arm.label} at {check.prior_logit_variance:g}"


def _slug(arm: Arm) -> str:
    return safe_name(arm.label.replace(" · ", "_"))
