"""The report: one HTML file that needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from bayes_clip.evaluation.results import Comparison
from bayes_clip.evaluation.write import full_config
from bayes_clip.report.arms import detailed, settings_of
from bayes_clip.report.glossary import ENGINES, TERMS
from bayes_clip.report.picture import Picture
from bayes_clip.report.style import engine_of
from bayes_clip.report.svg import inline
from bayes_clip.report.tables import data_rows, metric_table
from bayes_clip.report.words import headline, verdict

if TYPE_CHECKING:
    from bayes_clip.report.sureness import Sureness

TEMPLATE = "comparison.html.j2"


def environment() -> Environment:
    """Where templates come from: texts from outside are escaped, a name that is missing is an error."""
    return Environment(
        loader=PackageLoader("bayes_clip", "report"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(
    comparison: Comparison,
    pictures: Sequence[Picture],
    drawings: Mapping[str, str],
    sure: Sequence[Sureness] = (),
) -> str:
    """The whole page as text: figures, styles and script are inside; every text from outside is escaped.

    `drawings` holds the SVG of every picture by its name, `sure` what to say of how sure the numbers are.
    """
    settings = settings_of(comparison)
    engines = list(dict.fromkeys(engine_of(label) for setting in settings for label in setting.arms))
    config = full_config(comparison)
    versions = config.pop("versions")
    drawn = {run.row.get("seed", "") for run in comparison.runs} - {""}  # none for the whole support set
    seeds = sorted(int(seed) for seed in drawn)
    tasks = list(dict.fromkeys(setting.task for setting in settings))
    alone = len(comparison.runs) == 1
    sections = [("answer", "The answer"), ("question", "What was asked"), ("results", "All numbers")]
    sections += [("sure", "How sure they are")] if sure else []
    sections += [(f"task-{index}", task) for index, task in enumerate(tasks, 1)]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            kicker="one posterior, measured" if alone else "comparison of engines",
            headline=headline(settings),
            date=date.today().isoformat(),
            sections=sections,
            alone=alone,
            tasks=tasks,
            engines={name: ENGINES.get(name, "a program of your own") for name in engines},
            seeds=seeds,
            verdicts=[verdict(setting) for setting in detailed(settings)],
            data=data_rows(comparison.tasks, settings),
            tables=[metric_table(setting) for setting in settings],
            sure=sure,
            pictures=[
                (picture, inline(drawings[picture.name], picture.name, picture.alt)) for picture in pictures
            ],
            notes=list(comparison.notes),
            terms=TERMS,
            versions=versions,
            config=json.dumps(config, indent=2, default=str),
        )
    )
