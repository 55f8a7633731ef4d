"""Writing the report of one fit: what it was made of, and what the labels themselves say of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bayes_clip.data.task import Task
from bayes_clip.errors import UserError
from bayes_clip.evaluation.holdout import HeldOut
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.suspects import SUSPECT_COLUMNS
from bayes_clip.evaluation.write import write_csv
from bayes_clip.fitting import Fit
from bayes_clip.report.document import Document, Grid, Section, grid, render_document
from bayes_clip.report.fit_pictures import FEWEST_BATCHES, held_out_pictures, prior_picture, stream_pictures
from bayes_clip.report.glossary import ENGINES, TERMS
from bayes_clip.report.picture import Picture, save_pictures
from bayes_clip.report.words import TITLES
from bayes_clip.report.write import whole_folder
from bayes_clip.versions import installed_versions

FIT_FILES = frozenset({"report.html", "figures", "steps.csv", "suspects.csv", "config.json"})
STEP_COLUMNS = ("step", "rows", "prequential_score", "log_evidence", "nis", "degrees_of_freedom", "seconds")
SPOKEN = ("Calibrated", "ECE", "Floor of the ECE", "AURC", "Posterior", "NLL, or log-loss")
TRIED = (
    ("prior_variance", "Prior variance", "of each weight", None),
    ("fold_nll", "NLL of folds", "nats a label, on the parts left out", 4),
    ("objective", "With hyper-prior", "what is minimised", 4),
    (
        "covariance_scale",
        "Covariance scale",
        "share of the posterior's covariance that predictions use",
        None,
    ),
)

SUSPECTS = (
    ("row", "Row", "of the support set, from 0", 0),
    ("input", "Image", "", None),
    ("given", "Given label", "", None),
    ("suggested", "Looks like", "the most probable class", None),
    ("probability", "Probability", "of the given label, its row left out", 4),
    ("wrong", "Wrong", "probability that the label is wrong", 3),
)


def write_fit(
    fitted: Fit,
    task: Task,
    directory: Path | str,
    held_out: HeldOut | None = None,
    config: Mapping[str, Any] | None = None,
    suspects: Sequence[Mapping[str, Cell]] | None = None,
) -> None:
    """Write report.html, figures/ (PNG and SVG), config.json, for a filter steps.csv, and suspects.csv.

    Only the support set of `task`, the one that was fitted, is looked at. `held_out`: as `hold_out` made it;
    `suspects`: labels that look wrong, as `suspect_rows` lists them, None where they were not looked at.
    The folder appears whole at the end, in the place of an earlier report if there is one.

    Raises:
        UserError: the folder holds something else, or cannot be written to.
    """
    with whole_folder(directory, FIT_FILES) as folder:
        document = document_of(fitted, task, held_out, config or {}, suspects)
        drawings = save_pictures(document.pictures, folder / "figures")
        (folder / "report.html").write_text(render_document(document, drawings), encoding="utf-8")
        text = json.dumps({"versions": installed_versions(), **document.config}, indent=2, default=str)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        if fitted.steps:
            write_csv(folder / "steps.csv", STEP_COLUMNS, step_rows(fitted))
        if suspects is not None:
            write_csv(folder / "suspects.csv", SUSPECT_COLUMNS, suspects)


def check_apart(report: Path, posterior: Path) -> None:
    """Refuse a report inside the folder of a posterior, which holds nothing else.

    Raises:
        UserError: it lies there.
    """
    if posterior.resolve() in (report.resolve(), *report.resolve().parents):
        raise UserError(f"--report {report}: lies in the posterior's own folder; give a folder beside it")


def step_rows(fitted: Fit) -> list[dict[str, Cell]]:
    """One row per batch of the filter, in nats and seconds."""
    return [
        {
            "step": index,
            "rows": step.rows,
            "prequential_score": float(step.prequential_score),
            "log_evidence": float(step.change.log_evidence),
            "nis": float(step.nis),
            "degrees_of_freedom": step.degrees_of_freedom,
            "seconds": step.seconds,
        }
        for index, step in enumerate(fitted.steps)
    ]


def document_of(
    fitted: Fit,
    task: Task,
    held_out: HeldOut | None,
    config: Mapping[str, Any],
    suspects: Sequence[Mapping[str, Cell]] | None = None,
) -> Document:
    """The page of one fit."""
    settings = fitted.posterior.source.settings
    stream = stream_pictures(fitted, task.name, task.num_classes)
    prior = prior_picture(fitted, task.name)
    held = held_out_pictures(held_out, settings.engine, task.name)
    parts = [
        Section(
            "answer",
            "The answer",
            sentences=_sentences(fitted, task, held_out),
            tables=(_settings_table(fitted, task),),
        ),
        Section(
            "choice",
            "How it was chosen",
            paragraphs=(_choice(fitted),),
            tables=_tried(fitted),
            pictures=_those(prior),
        ),
        Section("stream", "The stream", paragraphs=_too_short(fitted), pictures=tuple(stream)),
        Section("held-out", "What was left out in turn", pictures=tuple(held)),
        _suspects_section(task, suspects),
    ]
    terms = tuple(term for term in TERMS if term[0] in SPOKEN)
    return Document(
        kicker="one fit",
        headline=f"{TITLES.get(settings.engine, settings.engine)} on {task.name}, "
        f"{len(task.support_labels)} labels of {task.num_classes} classes",
        byline="Everything here comes from the labelled images alone. bayes-clip evaluate measures the "
        "posterior on images that had no part in it.",
        sections=tuple(part for part in parts if part.pictures or part.paragraphs or part.sentences),
        notes=tuple(dict.fromkeys([*task.notes, *settings.remarks, *fitted.notes])),
        terms=terms,
        files="Beside this page lie figures/ as PNG and SVG, for a filter steps.csv (a row per batch), "
        "suspects.csv (labels that look wrong), and config.json, which says:",
        config={"settings": asdict(settings), "task": repr(task), "info": fitted.info, **config},
    )


def _sentences(fitted: Fit, task: Task, held_out: HeldOut | None) -> tuple[str, ...]:
    settings = fitted.posterior.source.settings
    said = [f"{settings.engine}: {ENGINES.get(settings.engine, 'a program of your own')}."]
    if held_out is None:
        said.append("With one labelled image per class none can be left out, so nothing is known of errors.")
    else:
        right, sure = held_out.correct.mean(), held_out.confidence.mean()
        said.append(
            f"On labelled images left out in turn it is right in {right:.1%} of {len(held_out.correct)} "
            f"cases and claims {sure:.1%}; the final fit has seen more of them."
        )
    info = fitted.info
    if "prequential_score" in info:
        cost = -info["prequential_score"] / len(task.support_labels)
        said.append(f"Each label cost {cost:.3f} nats on average before it was learned (prequential score).")
    said.append(f"It took {fitted.seconds:.2f} seconds, the choice of the prior variance included.")
    return tuple(said)


def _suspects_section(task: Task, suspects: Sequence[Mapping[str, Cell]] | None) -> Section:
    title = "Labels that look wrong"
    if suspects is None:
        return Section("suspects", title)
    how = (
        "Each label is judged by fits that did not see its row. Labels are taken to be right but for a share "
        "of mistakes, which is estimated; listed is what is then more likely wrong than right."
    )
    said = f"{len(suspects)} of {len(task.support_labels)} labels look wrong."
    listed = (grid("Suspects", SUSPECTS, suspects),) if suspects else ()
    return Section("suspects", title, paragraphs=(f"{said} {how}",), tables=listed)


def _choice(fitted: Fit) -> str:
    settings, tuned = fitted.posterior.source.settings, fitted.tuned
    if settings.prior_variance is not None:
        return f"The prior variance, {tuned.prior_variance:.3g}, was given."
    if not tuned.profile:
        return (
            f"The prior variance, {tuned.prior_variance:.3g}, is the usual one: there was nothing to choose, "
            "or too little to choose it by."
        )
    return (
        f"Of {len(tuned.profile)} prior variances tried, {tuned.prior_variance:.3g} predicts left-out parts "
        "of the labelled images best, a weak hyper-prior included."
    )


def _too_short(fitted: Fit) -> tuple[str, ...]:
    if not 0 < len(fitted.steps) < FEWEST_BATCHES:
        return ()
    return (
        f"The labels came in {len(fitted.steps)} batches, too few to draw; steps.csv has their numbers, and "
        "--batch-size makes more.",
    )


def _tried(fitted: Fit) -> tuple[Grid, ...]:
    rows = [asdict(one) for one in fitted.tuned.profile]
    return (grid("Prior variances tried", TRIED, rows),) if rows else ()


def _settings_table(fitted: Fit, task: Task) -> Grid:
    source = fitted.posterior.source
    settings = source.settings
    found: dict[str, Cell] = {
        "Model": settings.model,
        "Engine": settings.engine,
        "Covariance": settings.family,
        "Rule": settings.update_rule if settings.engine == "ekf" else "",
        "Predictive": fitted.posterior.predictive,
        "Novelty score": fitted.posterior.novelty_score,
        "Labelled images": len(task.support_labels),
        "Images per class": "" if source.shots is None else source.shots,
        "Seed of the draw": "" if source.seed is None else source.seed,
        "Features": task.num_features,
        "Backbone": source.backbone or "",
    }
    rows = [{"what": name, "value": str(value)} for name, value in found.items() if value != ""]
    columns = (("what", "What", "", None), ("value", "Value", "", None))
    return grid("What was fitted", columns, rows)


def _those(picture: Picture | None) -> tuple[Picture, ...]:
    return () if picture is None else (picture,)
