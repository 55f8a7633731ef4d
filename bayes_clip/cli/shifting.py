"""The command that makes pictures worse: shift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables, values

SHIFTED: tuple[tables.Column, ...] = (
    ("corruption", "corruption", None),
    ("severity", "severity", None),
    ("accuracy", "accuracy", 3),
    ("confidence", "confidence", 3),
    ("nll", "NLL", 3),
    ("ece", "ECE", 3),
    ("novelty_mean", "novelty", 3),
    ("novelty_auroc", "AUROC", 3),
)


def shift(
    context: typer.Context,
    posterior: options.PosteriorFolder,
    task: options.TaskName,
    corruptions: Annotated[
        str,
        typer.Option(
            "--corruptions",
            metavar="C,..",
            help="all, or some of noise, blur, contrast, brightness, rotation, inversion, occlusion, jpeg.",
        ),
    ] = "all",
    severities: Annotated[
        str, typer.Option("--severities", metavar="S,..", help="From 1, slight, to 5, severe; also 1-5.")
    ] = "1-5",
    pictures: Annotated[
        int | None,
        typer.Option(
            "--pictures", metavar="N", min=1, help="Query pictures at most, drawn.", show_default="all"
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of that draw, and of what is random in a corruption.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write.", show_default="runs/shift_TASK"),
    ] = None,
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    precision: options.Precision = "auto",
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    device: options.Device = "cpu",
    debug: options.Debug = False,
) -> None:
    """Corrupt a task's query pictures and measure a posterior on them, by kind and severity.

    Accuracy, NLL, ECE, and whether the novelty score notices: its AUROC between corrupted and clean pictures.
    Writes shift.csv, figures/, config.json and report.html.

    \b
    Examples
      bayes-clip shift posterior/ digits
      bayes-clip shift posterior/ photos/ --corruptions noise,blur --severities 1,3,5 --pictures 500
    """
    from bayes_clip.data.resolve import load_task
    from bayes_clip.evaluation.shift import chosen_corruptions
    from bayes_clip.evaluation.shift import shift as run
    from bayes_clip.evaluation.verdicts import check_backbone
    from bayes_clip.report.shift_write import OUR_FILES, finding, summary, write_shift
    from bayes_clip.report.write import check_writable
    from bayes_clip.storage.folder import load_posterior

    kinds = values.names(corruptions, "--corruptions")
    levels = values.whole_range(severities, "--severities", 1)
    chosen_corruptions(kinds, levels)
    folder = out or Path("runs", f"shift_{values.stem(task)}")
    check_writable(folder, OUR_FILES)
    known = load_posterior(posterior)
    encoder = values.encoder(backbone, pretrained, device, precision)
    loaded = load_task(task, encoder, None, skip_broken, True, device)
    check_backbone(known, loaded.backbone, task)
    shifted = run(known, loaded, kinds, levels, pictures, seed)
    write_shift(shifted, folder, {"command": {"shift": context.params}})
    rows = [{**row, "severity": str(row["severity"])} for row in summary(shifted)]
    tables.show(tables.plain_table(SHIFTED, rows))
    tables.line(finding(shifted))
    tables.notes(shifted.notes)
    tables.line(f"report: {folder / 'report.html'}")
