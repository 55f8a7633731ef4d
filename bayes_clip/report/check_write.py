"""Writing a check to a folder: tables, verdicts and figures, all of it or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

from bayes_clip.evaluation.checking import COLUMNS, Check, CheckReport
from bayes_clip.evaluation.coverage import coverage
from bayes_clip.evaluation.results import Cell
from bayes_clip.evaluation.uniformity import LEVEL
from bayes_clip.evaluation.write import write_csv
from bayes_clip.report.arms import safe_name
from bayes_clip.report.check_plots import coverage_plot, innovation_plot, rank_functions, rank_histograms
from bayes_clip.report.svg import svg_text
from bayes_clip.report.write import whole_folder
from bayes_clip.versions import installed_versions

OUR_FILES = frozenset({"checks.csv", "quantities.csv", "verdicts.json", "figures"})
QUANTITY_COLUMNS = (
    *("engine", "covariance", "rule", "prior_logit_variance", "quantity", "p_value", "shift", "spread"),
    *("coverage_50", "coverage_80", "coverage_95"),
)


def write_check(report: CheckReport, directory: Path | str) -> None:
    """Write checks.csv, quantities.csv, verdicts.json and figures/ (PNG and SVG).

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
        (folder / "figures").mkdir()
        for name, figure in figures(report):
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # the layout is settled: two files are saved from it
            figure.savefig(folder / "figures" / f"{name}.png", dpi=160)
            (folder / "figures" / f"{name}.svg").write_text(svg_text(figure), encoding="utf-8")


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


def figures(report: CheckReport) -> Iterator[tuple[str, Figure]]:
    """Every figure with its file name: coverage of all arms, and the ranks and innovations of each."""
    if not report.checks:
        return
    yield "coverage", coverage_plot(report.checks)
    for arm in dict.fromkeys(check.arm for check in report.checks):
        own = [check for check in report.checks if check.arm == arm]
        slug = safe_name(arm.label.replace(" · ", "_"))
        yield f"ranks_{slug}", rank_histograms(own)
        yield f"rank_functions_{slug}", rank_functions(own)
        if any(check.labels is not None for check in own):
            yield f"innovations_{slug}", innovation_plot(own)
