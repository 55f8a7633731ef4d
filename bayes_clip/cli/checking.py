"""The command that doubts: check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bayes_clip.cli import options, tables, values

if TYPE_CHECKING:
    from bayes_clip.evaluation.checking import CheckReport

CHECK: tuple[tables.Column, ...] = (
    ("engine", "engine", None),
    ("covariance", "covariance", None),
    ("rule", "rule", None),
    ("prior_logit_variance", "s²v", None),
    ("verdict", "verdict", None),
    ("width_needed", "width needed ×", 2),
    ("coverage_50", "50 %", 2),
    ("coverage_80", "80 %", 2),
    ("coverage_95", "95 %", 2),
    ("pareto_k", "k̂", 2),
    ("labels", "stream of labels", None),
    ("numbers", "stream of numbers", None),
)


def check(
    engines: Annotated[
        str,
        typer.Option(
            "--engines",
            "--engine",
            help="ekf and laplace take seconds; vi one a simulation, nuts half a minute; all: every one.",
            rich_help_panel=options.ADAPTER,
        ),
    ] = "ekf,laplace",
    model: options.Models = "linear_probe",
    covariance: Annotated[
        str | None,
        typer.Option(
            "--covariance",
            help="Covariances, or all.",
            show_default="each engine's own",
            rich_help_panel=options.ADAPTER,
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            "--rule",
            help="Update rules of ekf, or all.",
            show_default="its own",
            rich_help_panel=options.ADAPTER,
        ),
    ] = None,
    prior_logit_variance: Annotated[
        str,
        typer.Option(
            "--prior-logit-variance",
            metavar="X,..",
            help="Prior variances s²v of a logit: what compare tunes to is usually 10 to 300.",
            rich_help_panel=options.RUNNING,
        ),
    ] = "1,10,100",
    simulations: Annotated[
        int,
        typer.Option(
            "--simulations", help="Data sets drawn for each; at least 20.", rich_help_panel=options.RUNNING
        ),
    ] = 100,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the data drawn.", rich_help_panel=options.RUNNING)
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write.", show_default="runs/check"),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Hold every engine against its own claims, on data drawn from the model's own prior.

    True weights are drawn, labels drawn from them, and the posterior asked where the truth lies: ranks among
    its draws, coverage of its intervals, Pareto-k̂, and for the filter how surprised it is by what comes.
    An engine that fails is a finding, not an error. Writes checks.csv, quantities.csv, verdicts.json,
    figures/ and report.html.

    \b
    Examples
      bayes-clip check
      bayes-clip check --engines ekf --covariance all --rule all --prior-logit-variance 10
      bayes-clip check --engines laplace,vi --simulations 50 --out runs/doubts
    """
    from bayes_clip.evaluation.checking import check as run
    from bayes_clip.report.check_write import OUR_FILES, write_check
    from bayes_clip.report.write import check_writable

    folder = out or Path("runs", "check")
    check_writable(folder, OUR_FILES)
    report = run(
        values.names(engines, "--engines"),
        model=values.one(model, "--model"),
        covariances=None if covariance is None else values.names(covariance, "--covariance"),
        rules=None if rule is None else values.names(rule, "--rule"),
        prior_logit_variances=values.positive_numbers(prior_logit_variance, "--prior-logit-variance"),
        simulations=simulations,
        seed=seed,
    )
    show_check(report)
    if report.checks:
        write_check(report, folder)
        tables.line(f"report: {folder / 'report.html'}")


def show_check(report: CheckReport) -> None:
    """The table, what its columns mean, and the remarks."""
    rows = [check.row for check in report.checks]
    if rows:
        shown = [{**row, "prior_logit_variance": f"{row['prior_logit_variance']:g}"} for row in rows]
        tables.show(tables.plain_table(CHECK, shown))
        tables.line(
            "width needed ×: how many times as wide the posterior should have been; 50, 80, 95 %: truths "
            "inside those intervals; k̂ above "
            f"{report.config['pareto_k_threshold']:.2f}: draws cannot be reweighted"
        )
    tables.notes(report.notes)
