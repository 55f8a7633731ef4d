"""Writing a check to a folder: tables, verdicts, figures and the report, all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path

from bayes_clip.evaluation.checking import COLUMNS, Check, CheckReport
from bayes_clip.evaluation.coverage import coverage
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.uniformity import LEVEL
from bayes_clip.evaluation.write import write_csv
from bayes_clip.report.check_page import document_of
from bayes_clip.report.document import render_document
from bayes_clip.report.picture import save_pictures
from bayes_clip.report.write import whole_folder
from bayes_clip.versions import installed_versions

OUR_FILES = frozenset({"checks.csv", "quantities.csv", "verdicts.json", "figures", "report.html"})
QUANTITY_COLUMNS = (
    *("engine", "covariance", "rule", "prior_logit_variance", "quantity", "p_value", "shift", "spread"),
    *("coverage_50", "coverage_80", "coverage_95"),
)


def write_check(report: CheckReport, directory: Path | str) -> None:
    """Write checks.csv, quantities.csv, verdicts.json, figures/ (PNG and SVG) and report.html.

    Raises:
        UserError: the folder holds something else, or cannot be written to.
    """
    with whole_folder(directory, OUR_FILES) as folder:
        write_csv(folder / "checks.csv", COLUMNS, [check.row for check in report.checks])
        rows = [row for check in report.checks for row in quantity_rows(check)]
        write_csv(folder / "quantities.csv", QUANTITY_COLUMNS, rows)
        (folder / "verdicts.json").write_text(
            json.dumps(verdicts(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        document = document_of(report)
        drawings = save_pictures(document.pictures, folder / "figures")
        (folder / "report.html").write_text(render_document(document, drawings), encoding="utf-8")


def quantity_rows(check: Check) -> list[dict[str, Cell]]:
    """One row per ranked quantity of a check."""
    own = check.calibration
    cells: list[dict[str, Cell]] = []
    for index, (name, test) in enumerate(zip(own.names, own.checks, strict=True)):
        found = coverage(own.ranks[:, [index]], own.draws)
        cells.append(
            {
                "engine": check.arm.engine,
                "covariance": check.arm.covariance,
                "rule": check.arm.rule,
                "prior_logit_variance": check.prior_logit_variance,
                "quantity": name,
                "p_value": test.p_value,
                "shift": test.shift,
                "spread": test.spread,
                **{f"coverage_{round(100 * each.level)}": each.share for each in found},
            }
        )
    return cells


def verdicts(report: CheckReport) -> dict[str, object]:
    """What verdicts.json holds: the verdict and numbers of every check, and how they came about."""
    return {
        "versions": installed_versions(),
        **report.config,
        "level_of_a_verdict": LEVEL,
        "notes": list(report.notes),
        "checks": [check.row for check in report.checks],
    }
