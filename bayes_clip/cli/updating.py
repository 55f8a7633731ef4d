"""The command that teaches a posterior more: update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables, values
from bayes_clip.cli.fitting import CheckpointEvery, Resume


def update(
    posterior: options.PosteriorFolder,
    task: Annotated[
        str | None,
        typer.Argument(metavar="[TASK]", help="More labels: a task, a folder, or a labelled feature file."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="NEW", help="Where to write.", show_default="POSTERIOR itself"),
    ] = None,
    remove_class: Annotated[
        list[str] | None, typer.Option("--remove-class", metavar="NAME", help="Forget a class; repeatable.")
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            "--order",
            help="balanced, given or random order of the labels.",
            show_default="that of the fit",
            rich_help_panel=options.ADAPTER,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Labels an update.",
            show_default="that of the fit",
            rich_help_panel=options.ADAPTER,
        ),
    ] = None,
    block_size: options.BlockSize = None,
    passes: Annotated[
        int | None,
        typer.Option(
            "--passes",
            min=1,
            help="Passes over these labels, and over the earlier ones if the fit took several.",
            show_default="those of the fit",
            rich_help_panel=options.ADAPTER,
        ),
    ] = None,
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
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    debug: options.Debug = False,
) -> None:
    """Teach a posterior more labels, or another class, without fitting again (engine ekf).

    Classes are matched by name, else by number; an unknown name is a new class.
    Any labelled rows will do, even of one class; query rows and test/ are left alone.

    \b
    Examples
      bayes-clip update posterior/ more_photos/
      bayes-clip update posterior/ features.npz --batch-size 1 --out newer/
      bayes-clip update posterior/ --remove-class cat
    """
    from bayes_clip.backbone.templates import read_templates
    from bayes_clip.data.resolve import load_task
    from bayes_clip.data.task import few_shot
    from bayes_clip.storage.durable import update_into
    from bayes_clip.storage.folder import check_posterior
    from bayes_clip.streaming import Pace

    check_posterior(posterior)
    encoder = values.encoder(backbone, pretrained, device, precision)
    drawn = None
    if task is not None:
        loaded = load_task(task, encoder, templates, skip_broken, allow_unknown_classes, device, partial=True)
        drawn = few_shot(loaded, shots, seed)
    updated = update_into(
        posterior,
        drawn,
        out=out,
        remove=remove_class or (),
        pace=Pace(order, batch_size, passes, block_size),
        backbone=encoder,
        templates=None if templates is None else read_templates(templates),
        device=device,
        resume=resume,
        checkpoint_every=checkpoint_every,
    )
    tables.line(f"{updated or 'finished before'} in {out or posterior}")
    tables.notes([*(drawn.notes if drawn else ()), *(updated.notes if updated else ())])
