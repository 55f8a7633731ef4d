"""The command that says which pictures to label next: suggest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bayes_clip.cli import options, tables, values


def suggest(
    posterior: options.PosteriorFolder,
    pool: Annotated[
        str, typer.Argument(metavar="POOL", help="Pictures without labels, a folder of them, a feature file.")
    ],
    k: Annotated[int, typer.Option("-k", metavar="K", help="How many.")] = 10,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="information (what a label would say of the weights) or evidence (how unsure the prediction "
            "is, for whatever reason).",
        ),
    ] = "information",
    include_novel: Annotated[
        bool,
        typer.Option("--include-novel", help="Also suggest pictures that look unlike any class."),
    ] = False,
    false_alarms: options.FalseAlarms = 0.05,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.csv", help="Also write a table.")] = None,
    backbone: options.BackboneName = None,
    pretrained: options.Pretrained = None,
    precision: options.Precision = "auto",
    skip_broken: options.SkipBroken = False,
    store: options.Store = None,
    no_store: options.NoStore = False,
    device: options.Device = "cpu",
    debug: options.Debug = False,
) -> None:
    """Say which pictures to label next, the one that would teach most first.

    Each is chosen given the ones before, so that they differ. Label them, then: bayes-clip update.

    \b
    Examples
      bayes-clip suggest posterior/ unlabelled_photos/ -k 10
      bayes-clip suggest posterior/ pool.npz -k 50 --out to_label.csv
    """
    from bayes_clip.data.arrays import check_place
    from bayes_clip.data.resolve import load_input
    from bayes_clip.evaluation.conformal import check_share
    from bayes_clip.evaluation.holdout import dated, load_held_out
    from bayes_clip.evaluation.verdicts import check_backbone
    from bayes_clip.evaluation.write import write_csv
    from bayes_clip.storage.files import written_whole
    from bayes_clip.storage.folder import load_posterior
    from bayes_clip.suggesting import COLUMNS, check_request, suggest

    check_share("--false-alarms", false_alarms)
    if out is not None:
        check_place(out)
    known, held_out = load_posterior(posterior), load_held_out(posterior)
    check_request(known, k, by)
    rows = load_input(pool, values.encoder(backbone, pretrained, device, precision), skip_broken, device)
    check_backbone(known, rows.backbone, pool)
    limit, notes = None, []
    if held_out is not None and not include_novel:
        limit, notes = held_out.novelty_limit(false_alarms).value, [*dated(known, held_out)]
    found = suggest(known, rows.rows, k, by=by, novelty_limit=limit)
    listed = found.table(rows.paths)
    if out is not None:
        with written_whole(out) as temporary:
            write_csv(temporary, COLUMNS, listed)
    tables.show(tables.plain_table(tables.SUGGESTION, listed))
    tables.notes([*rows.notes, *found.notes, *notes])
