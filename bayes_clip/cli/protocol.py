"""The command that runs a whole few-shot evaluation: protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables, values
from bayes_clip.errors import UserError

DataSets = Annotated[
    str | None,
    typer.Option("--datasets", metavar="D,..", help="By name.", show_default="all there are"),
]
ProtocolShots = Annotated[
    str, typer.Option("--shots", metavar="K,..", help="Labels per class.", rich_help_panel=options.SUPPORT)
]
BaseToNew = Annotated[
    bool,
    typer.Option(
        "--base-to-new",
        help="Learn the first half of the classes and score on each half among its own classes.",
        rich_help_panel=options.SUPPORT,
    ),
]
Shift = Annotated[
    bool,
    typer.Option(
        "--shift",
        help="Score what is learned on ImageNet on its V2, Sketch, A and R too (A, R: their 200 classes).",
        rich_help_panel=options.SUPPORT,
    ),
]


def protocol(
    root: Annotated[
        Path, typer.Argument(metavar="DATASET_ROOT", help="A folder of data sets, as CoOp arranges them.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write, and to go on.")] = Path(
        "runs/protocol"
    ),
    datasets: DataSets = None,
    models: options.Models = "linear_probe",
    engines: options.Engines = options.ALL_DEFAULT_ENGINES,
    shots: ProtocolShots = "1,2,4,8,16",
    seeds: options.SeedsList = "1,2,3",
    base_to_new: BaseToNew = False,
    shift: Shift = False,
    covariance: options.Covariance = None,
    rule: options.Rule = None,
    prior_variance: options.PriorVariance = "auto",
    predictive: options.Predictive = "auto",
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    precision: options.Precision = "auto",
    templates: options.Templates = None,
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    allow_unknown_classes: options.AllowUnknownClasses = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    workers: options.Workers = None,
    ray_address: options.RayAddress = None,
    debug: options.Debug = False,
) -> None:
    """Run the few-shot protocol of CoOp: models x engines x shots x seeds x data sets, with paired tests.

    DATASET_ROOT holds CoOp's data set folders with their split files; pictures in class folders and feature
    tasks in it count as well. Each cell's row joins metrics.csv as it ends: run the same command again to
    go on where it was stopped, or with more seeds, models or data sets. Also writes summary and paired
    tests (CSV and Markdown) and figures/.

    \b
    Examples
      bayes-clip protocol data/ --backbone ViT-B-16 --pretrained openai --engines zero_shot,ekf --out runs/all
      bayes-clip protocol data/ --datasets dtd,eurosat --shots 1,4,16 --models all --engines sgd,ekf
      bayes-clip protocol data/ --base-to-new --shots 16
    """
    from bayes_clip.data.dataset_root import find_data_sets
    from bayes_clip.data.prepared import Draws, Reading, prepare_all
    from bayes_clip.evaluation.protocol import FILES, Grid, run_protocol
    from bayes_clip.report.protocol_write import FILES as SUMMED_UP
    from bayes_clip.report.protocol_write import write_protocol
    from bayes_clip.report.write import check_writable
    from bayes_clip.settings import FitSettings

    if base_to_new and shift:
        raise UserError("--base-to-new with --shift: variants are scored on all classes; ask for one of them")
    check_writable(out, frozenset({*FILES, *SUMMED_UP}))
    arms = values.arms(models, engines, shots, seeds)
    settings = FitSettings(
        covariance=covariance,
        rule=rule,
        prior_variance=values.prior_variance(prior_variance),
        predictive=predictive,
        device=device,
        dtype=dtype,
    )
    grid = Grid(settings=settings, base_to_new=base_to_new, **arms)
    found = find_data_sets(root, None if datasets is None else values.names(datasets, "--datasets"), shift)
    if found.missing:
        tables.show_missing(found.missing)
    if not found.data_sets:
        raise UserError(f"{root}: none of the data sets is there; the table says where to get them")
    cluster = values.cluster(workers, ray_address)
    encoder = values.encoder(backbone, pretrained, device, precision)
    reading = Reading(encoder, templates, skip_broken, allow_unknown_classes)
    prepared, shifts = prepare_all(found, reading, Draws(grid.shots, grid.seeds), device)
    outcome = run_protocol(grid, prepared, out, shifts, cluster)
    if outcome.rows:
        tables.show(tables.protocol_table(write_protocol(outcome.rows, out)))
    tables.notes(outcome.notes)
    tables.line(f"{outcome.fitted} fits, {len(outcome.rows)} rows in {out / 'metrics.csv'}")
    if outcome.failures:
        count = len(outcome.failures)
        tables.notes(outcome.failures)
        raise UserError(f"{count} fits could not be done, the first: {outcome.failures[0]}")
