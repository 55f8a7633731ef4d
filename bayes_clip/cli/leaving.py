"""The command that leaves: a posterior as files that need no bayes_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables


def export(
    posterior: options.PosteriorFolder,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    formats: Annotated[
        str, typer.Option("--format", metavar="F,..", help="torch, onnx, or both.")
    ] = "torch,onnx",
    false_alarms: options.FalseAlarms = 0.05,
    debug: options.Debug = False,
) -> None:
    """Write a posterior's predictive as a torch program and as ONNX, for use without bayes_clip.

    Features (N, D) in; probabilities, novelty and in/out verdict out, as predict gives them. What the numbers
    mean (classes, encoder, threshold) stands in predictive.json beside.

    \b
    Examples
      bayes-clip export posterior/ --out leaving/
      bayes-clip export posterior/ --out leaving/ --format onnx --false-alarms 0.01
    """
    from bayes_clip.evaluation.conformal import check_share
    from bayes_clip.evaluation.holdout import dated, load_held_out
    from bayes_clip.leaving.export import FILES, check_formats, export_posterior
    from bayes_clip.report.write import check_writable, whole_folder
    from bayes_clip.storage.folder import load_posterior

    chosen = list(dict.fromkeys(name.strip() for name in formats.split(",")))
    check_formats(chosen)
    check_share("--false-alarms", false_alarms)
    check_writable(out, FILES)
    known, held_out = load_posterior(posterior), load_held_out(posterior)
    with whole_folder(out, FILES) as folder:
        about = export_posterior(known, held_out, folder, chosen, false_alarms)
    if held_out is None:
        tables.notes(["no in/out verdict: one shot per class leaves nothing to compare novelty with"])
    tables.notes(dated(known, held_out))
    tables.line(f"{', '.join(about['files'].values())} and predictive.json in {out}")
