"""The commands that learn: compare and fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayes_clip.cli import options, tables, values
from bayes_clip.errors import UserError

if TYPE_CHECKING:
    from bayes_clip.data.task import Task
    from bayes_clip.fitting import Fit
    from bayes_clip.settings import FitSettings

ReportFolder = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="DIR",
        help="Also write a report of the fit, by the labels alone.",
        rich_help_panel=options.RUNNING,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what each covariance would take, and fit and write nothing.",
        rich_help_panel=options.RUNNING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on where the same command was stopped; ends as if it had not been.",
        rich_help_panel=options.RUNNING,
    ),
]
Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed",
        help="Share the classes' covariances out over the processes that torchrun started.",
        rich_help_panel=options.RUNNING,
    ),
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every",
        metavar="N",
        min=1,
        help="Batches between checkpoints.",
        show_default="as often as 5 % of the time allows",
        rich_help_panel=options.RUNNING,
    ),
]


def compare(
    context: typer.Context,
    tasks: options.TaskNames,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where to write.", show_default="runs/TASK"),
    ] = None,
    models: options.Models = "linear_probe",
    engines: options.Engines = options.ALL_DEFAULT_ENGINES,
    covariance: options.Covariance = None,
    rule: options.Rule = None,
    prior_variance: options.PriorVariance = "auto",
    predictive: options.Predictive = "auto",
    class_prior: options.ClassPrior = "support",
    order: options.Order = "balanced",
    batch_size: options.BatchSize = None,
    block_size: options.BlockSize = None,
    passes: options.Passes = 1,
    decay: options.Decay = "1",
    process_noise: options.ProcessNoise = None,
    shots: options.ShotsList = None,
    seeds: options.SeedsList = "0",
    ood: options.Outside = None,
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
    resume: Resume = False,
    debug: options.Debug = False,
) -> None:
    """Fit every model, engine, shot count and seed asked for: one table and one report.

    Writes metrics.csv, predictions.npz, config.json, figures/ and report.html. Stopped on the way, what was
    fitted stays in cells/: the same command with --resume goes on from there. --workers and --ray-address
    run the fits on Ray, with the same table.

    \b
    Examples
      bayes-clip compare digits digits_rotated --shots 4 --out runs/demo
      bayes-clip compare features.npz --shots 1,4,16 --seeds 0,1,2,3,4
      bayes-clip compare digits --engines map,ekf --covariance full --prior-variance 0.01
      bayes-clip compare photos/ --backbone ViT-B-32 --pretrained laion2b_s34b_b79k
      bayes-clip compare features.npz --shots 1,4,16 --seeds 0,1,2,3,4 --workers 4
    """
    from bayes_clip.data.resolve import load_task
    from bayes_clip.evaluation.comparison import compare as run
    from bayes_clip.evaluation.kept_cells import FOLDER
    from bayes_clip.report.write import check_writable, write_comparison
    from bayes_clip.settings import FitSettings

    folder = out or Path("runs", "_".join(values.stem(task) for task in tasks))
    check_writable(folder)
    settings = FitSettings(
        covariance=covariance,
        rule=rule,
        prior_variance=values.prior_variance(prior_variance),
        predictive=predictive,
        class_prior=class_prior,
        order=order,
        batch_size=batch_size,
        block_size=block_size,
        passes=passes,
        decay=values.decay(decay),
        process_noise=values.process_noise(process_noise),
        device=device,
        dtype=dtype,
    )
    asked = values.arms(models, engines, shots, seeds)
    cluster = values.cluster(workers, ray_address)
    encoder = values.encoder(backbone, pretrained, device, precision)
    loaded = [
        load_task(task, encoder, templates, skip_broken, allow_unknown_classes, device, ood) for task in tasks
    ]
    comparison = run(loaded, settings=settings, cluster=cluster, keep=folder / FOLDER, resume=resume, **asked)
    config = {**comparison.config, "command": {"compare": context.params}}
    write_comparison(replace(comparison, config=config), folder)
    tables.show_comparison(comparison, folder)


def fit(
    context: typer.Context,
    task: options.TaskName,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="POSTERIOR", help="The folder to write.", show_default="none: required"
        ),
    ] = None,
    model: options.Models = "linear_probe",
    engine: options.Engines = "ekf",
    covariance: options.Covariance = None,
    rule: options.Rule = None,
    prior_variance: options.PriorVariance = "auto",
    predictive: options.Predictive = "auto",
    class_prior: options.ClassPrior = "support",
    order: options.Order = "balanced",
    batch_size: options.BatchSize = None,
    block_size: options.BlockSize = None,
    passes: options.Passes = 1,
    decay: options.Decay = "1",
    process_noise: options.ProcessNoise = None,
    shots: options.Shots = None,
    seed: options.Seed = 0,
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
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    report: ReportFolder = None,
    dry_run: DryRun = False,
    distributed: Distributed = False,
    debug: options.Debug = False,
) -> None:
    """Fit one posterior to a task's labels and keep it in a folder (safetensors and JSON).

    Engine ekf keeps where it stands as it goes: killed at any moment, it goes on with --resume. --dry-run
    says what each covariance would take on this machine, in memory and seconds, and fits nothing.

    \b
    Examples
      bayes-clip fit digits_rotated --shots 4 --out posterior/
      bayes-clip fit photos/ --engine laplace --backbone ViT-B-32 --pretrained openai --out posterior/
      bayes-clip fit features.npz --engine ekf --covariance full --prior-variance 0.01 --out posterior/
      bayes-clip fit features.npz --shots 16 --dry-run
      bayes-clip fit digits --shots 4 --out posterior/ --report runs/fit
      torchrun --nproc-per-node 2 -m bayes_clip.cli fit features.npz --distributed --out posterior/
    """
    from bayes_clip.data.resolve import load_task
    from bayes_clip.data.task import few_shot
    from bayes_clip.evaluation.suspects import doubt_labels, is_quick, remark, suspect_rows
    from bayes_clip.settings import FitSettings
    from bayes_clip.storage.durable import fit_into
    from bayes_clip.storage.folder import check_posterior_folder

    if not dry_run:
        out = _required(out)
        check_posterior_folder(out)
        if report is not None:
            from bayes_clip.report.fit_write import FIT_FILES, check_apart
            from bayes_clip.report.write import check_writable

            check_apart(report, out)
            check_writable(report, FIT_FILES, "--report")
    settings = FitSettings(
        model=values.one(model, "--model"),
        engine=values.one(engine, "--engine"),
        covariance=covariance,
        rule=rule,
        prior_variance=values.prior_variance(prior_variance),
        predictive=predictive,
        class_prior=class_prior,
        order=order,
        batch_size=batch_size,
        block_size=block_size,
        passes=passes,
        decay=values.decay(decay),
        process_noise=values.process_noise(process_noise),
        device=device,
        dtype=dtype,
    )
    if distributed:
        from bayes_clip.distributed import check_distributed

        if resume or checkpoint_every is not None or report is not None or dry_run:
            raise UserError(
                "--distributed keeps no checkpoints and writes no report: leave out --resume, "
                "--checkpoint-every, --report and --dry-run"
            )
        check_distributed(settings)
    encoder = values.encoder(backbone, pretrained, device, precision)
    loaded = load_task(task, encoder, templates, skip_broken, allow_unknown_classes, device)
    drawn = few_shot(loaded, shots, seed)
    if distributed:
        _fit_across(_required(out), drawn, settings)
        return
    if out is None or dry_run:
        _say_what_it_takes(drawn, settings)
        return
    tables.notes(settings.allocation(drawn.num_classes, drawn.num_features))
    fitted = fit_into(out, drawn, settings, resume=resume, checkpoint_every=checkpoint_every)
    tables.line(f"{fitted or 'finished before'} in {out}")
    looked_at = report is not None or (fitted and is_quick(drawn))
    doubts = doubt_labels(drawn, device=device) if looked_at else None
    suspects = None if doubts is None else suspect_rows(drawn, doubts)
    if fitted:
        tables.notes([*drawn.notes, *settings.remarks, *fitted.notes, *remark(drawn, suspects or [])])
    if report is not None:
        _report(fitted, drawn, out, report, {"command": {"fit": context.params}}, suspects)


def _report(
    fitted: Fit | None,
    drawn: Task,
    out: Path,
    report: Path,
    config: dict[str, Any],
    suspects: Sequence[Mapping[str, Any]] | None,
) -> None:
    """Write the report of a fit that was made here; of an earlier process nothing is known."""
    from bayes_clip.evaluation.holdout import load_held_out
    from bayes_clip.report.fit_write import write_fit

    if fitted is None:
        tables.notes(["no report: the fit had finished before; without --resume it is made again"])
        return
    write_fit(fitted, drawn, report, load_held_out(out), config, suspects)
    tables.line(f"report: {report / 'report.html'}")


def _fit_across(out: Path, drawn: Task, settings: FitSettings) -> None:
    from bayes_clip.distributed import fit_across, joined_processes

    with joined_processes(settings.device) as place:
        fitted = fit_across(out, drawn, settings, place)
    if fitted is not None:
        tables.line(f"{fitted} over {place.processes} processes in {out}")
        tables.notes([*drawn.notes, *settings.remarks, *fitted.notes])


def _required(out: Path | None) -> Path:
    if out is None:
        raise UserError(
            "--out: missing; name the folder to write, or ask with --dry-run what a fit would take"
        )
    return out


def _say_what_it_takes(task: Task, settings: FitSettings) -> None:
    from bayes_clip.forecast import forecast
    from bayes_clip.gaussian.cost import GIBIBYTE, free_memory

    rows = forecast(task, settings)
    tables.show(tables.forecast_table(rows))
    tables.line(
        f"{len(task.support_labels)} labels of {task.num_classes} classes, {task.num_features} features; "
        f"{free_memory(settings.device) / GIBIBYTE:.1f} GiB free on {settings.device}; nothing was fitted"
    )
    tables.notes(task.notes)
