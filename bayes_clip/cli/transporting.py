"""The command that takes a posterior over to another encoder: transport."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables


def transport(
    posterior: options.PosteriorFolder,
    to: Annotated[str, typer.Option("--to", metavar="BACKBONE", help="The new encoder, as --backbone.")],
    unlabelled: Annotated[
        str,
        typer.Option("--unlabelled", metavar="INPUT", help="Pictures of any kind like yours; no labels."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="NEW", help="Folder of the new posterior.")],
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained", help="Weights of --to: a tag or a file.", rich_help_panel=options.ENCODER
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BACKBONE",
            help="The encoder that the posterior was fitted with.",
            show_default="pocket_clip, or what the posterior names",
            rich_help_panel=options.ENCODER,
        ),
    ] = None,
    origin_pretrained: Annotated[
        str | None,
        typer.Option("--from-pretrained", help="Weights of --from.", rich_help_panel=options.ENCODER),
    ] = None,
    map_kind: Annotated[
        str | None,
        typer.Option(
            "--map",
            help="Between the feature spaces: procrustes (keeps lengths) or ridge (least squares).",
            show_default="ridge for linear heads, else procrustes",
            rich_help_panel=options.ADAPTER,
        ),
    ] = None,
    precision: options.Precision = "auto",
    templates: options.Templates = None,
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    device: options.Device = "cpu",
    debug: options.Debug = False,
) -> None:
    """Take a posterior over to another encoder, as the prior there: no label is asked for again.

    Unlabelled pictures, seen by both encoders, tell how their features correspond.
    Then teach it more with: bayes-clip update

    \b
    Examples
      bayes-clip transport posterior/ --to ViT-B-32 --pretrained openai --unlabelled photos/ --out newer/
      bayes-clip transport posterior/ --to new.json --pretrained new.safetensors --unlabelled photos/ --out n/
    """
    from bayes_clip.backbone.encoder import load_backbone
    from bayes_clip.backbone.templates import read_templates
    from bayes_clip.storage.folder import check_posterior, check_posterior_folder, load_posterior
    from bayes_clip.transporting import destination, origin_of, transport, unlabelled_rows

    check_posterior(posterior)
    check_posterior_folder(out)
    known = load_posterior(posterior, device)
    before = origin_of(known, origin, origin_pretrained, device, precision)
    after = load_backbone(to, pretrained, device, precision)
    prompts = None if templates is None else read_templates(templates)
    first, second = unlabelled_rows(unlabelled, before, after, skip_broken)
    moved = transport(known, destination(known, after, prompts), first, second, map_kind)
    moved.posterior.save(out)
    tables.line(f"{moved} in {out}")
    tables.notes(moved.notes)
